"""Equal tuning: what is searched for a method, and the file of what was chosen. Imports neither torch nor Optuna.

Values are chosen once per data set, pair and method (jobs/tune.py), by the validation scores of seeds that are
never reported, and stand in ``results/tuning/{dataset}/{pair}/{method}.json`` with every trial. A training job replaces
the config's values by those there before its keys are computed: a chosen value counts as if the config gave it.
"""

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from distillbench.config.config import Pair, Tune
from distillbench.config.variants import Variant
from distillbench.params import Choice, Parameters, Search
from distillbench.record import RecordError, Status, canonical_json, read_sealed, write_sealed

# so many trials TPE must have seen before it draws otherwise than at random (Optuna's n_startup_trials; its default)
RANDOM_TRIALS = 10

# by what they belong to, then by name: {"method": {"weight": 5.0}, "training": {"learning_rate": 0.02}}; those of a
# combination are named after the part: {"method": {"lsp.weight": 5.0, "kd.alpha": 0.3}, ...}
Values = dict[str, dict[str, Any]]
# the same, each a range {"low", "high", "log", "whole"} or a choice {"values"}
Space = dict[str, dict[str, dict[str, Any]]]


class Trial(BaseModel):
    """Values that were tried. scores: of validation, one per seed, up to a seed that failed; val: their mean.

    status: that of the seed that failed, if one did; then there is no ``val``. seconds: of training, of all seeds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    values: Values
    status: Status
    reason: str = ""
    scores: list[float] = []
    val: float | None = None
    seconds: float = 0.0


class Tuning(BaseModel):
    """What was chosen for a method, and why. Scores are fractions in [0, 1], of validation; trial 0 is the defaults.

    asked: the config's ``tune``. key: of everything that decides the trials' results. chosen: of every value that was
    searched, those of the best trial: the earliest of several, and the defaults where none finished (``reason``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    key: str
    dataset: str
    pair: str
    method: str
    backend: str
    metric: str
    resplit: bool
    asked: dict[str, Any]
    seeds: list[int]
    sampler: str
    space: Space
    chosen: Values
    chosen_trial: int
    reason: str = ""
    trials: list[Trial]

    @property
    def val_default(self) -> float | None:
        """The score with the default values, None if a run failed."""
        return self.trials[0].val

    @property
    def val_chosen(self) -> float | None:
        """The score with the chosen values, None if none finished."""
        return self.trials[self.chosen_trial].val

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest score of a trial that finished, None if none did."""
        scores = [trial.val for trial in self.trials if trial.val is not None]
        return (min(scores), max(scores)) if scores else None

    @property
    def searched(self) -> int:
        """How many hyper-parameters, the learning rate among them."""
        return sum(map(len, self.space.values()))

    def facts(self) -> dict[str, Any]:
        """What the records of the runs with the chosen values say of it."""
        scores = {"val_default": self.val_default, "val_chosen": self.val_chosen}
        facts: dict[str, Any] = {"trials": len(self.trials), "seeds": len(self.seeds)}
        facts |= {name: round(score, 6) for name, score in scores.items() if score is not None}
        return facts | ({"spread": [round(end, 6) for end in self.spread]} if self.spread else {})


# what is searched


def space_of(variant: Variant, pair: Pair, tune: Tune) -> Space:
    """What is searched for a variant: what its parts say and the config does not give, and the learning rate.

    The learning rate is searched for every method, the student alone too (config.Tune says why).
    """
    single = len(variant.parts) == 1
    method = {
        name if single else f"{part.name}.{name}": _described(each, part.declared.params, name)
        for part in variant.parts
        for name, each in part.searched(pair).items()
    }
    rate, factor = pair.training.learning_rate, tune.learning_rate
    around = {"low": rate / factor, "high": rate * factor, "log": True, "whole": False}
    return {"method": method, "training": {"learning_rate": around} if factor > 1 else {}}


def _described(search: Search, params: type[Parameters], name: str) -> dict[str, Any]:
    """As JSON."""
    if isinstance(search, Choice):
        return {"values": json.loads(canonical_json(list(search.values)))}
    kind = params.model_fields[name].annotation
    return {"low": search.low, "high": search.high, "log": search.log, "whole": int in (kind, *get_args(kind))}


def defaults(space: Space, params: dict[str, Any]) -> Values:
    """The values that a job's parameters have where ``space`` would choose others."""
    own = params["method"]["params"]
    method = {}
    for name in space["method"]:
        part, _, last = name.rpartition(".")  # the name of a part may have a dot in it, that of a value not
        method[name] = (own[part] if part else own)[last]
    return {"method": method, "training": {name: params["training"][name] for name in space["training"]}}


def with_values(params: dict[str, Any], values: Values) -> dict[str, Any]:
    """A job's parameters (see Grid.student_params) with some values replaced."""
    own = dict(params["method"]["params"])
    for name, value in values["method"].items():
        part, _, last = name.rpartition(".")
        if part:
            own[part] = {**own[part], last: value}
        else:
            own[last] = value
    method = {**params["method"], "params": own}
    return {**params, "method": method, "training": {**params["training"], **values["training"]}}


def with_chosen(params: dict[str, Any]) -> dict[str, Any]:
    """A job's parameters with the values chosen for it, where its method is tuned. Raises RecordError."""
    tuning = tuning_of(params)
    return with_values(params, tuning.chosen) if tuning else params


def tuning_of(params: dict[str, Any]) -> Tuning | None:
    """What was chosen for a job's method, if it is tuned.

    Raises RecordError naming the file: damaged, or of another budget than the config asks for.
    """
    if "tuned" not in params:
        return None
    asked = dict(params["tuned"])
    file = Path(asked.pop("file"))
    tuning = read_tuning(file)
    if tuning.asked != asked:
        raise RecordError(
            f"{file}: was tuned with {canonical_json(tuning.asked)}, the config asks for {canonical_json(asked)}. "
            "Delete the file and run snakemake again: trials that fit are not run again."
        )
    return tuning


def in_words(values: Values) -> str:
    """``weight 5, learning rate 0.02``; nothing where nothing was searched."""
    named = {**values["method"], **{name.replace("_", " "): value for name, value in values["training"].items()}}
    return ", ".join(f"{name} {_number(value)}" for name, value in named.items())


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


# its file


def write_tuning(path: Path, tuning: Tuning) -> None:
    """Write it with its checksum, atomically."""
    write_sealed(path, tuning.model_dump(mode="json"))


def read_tuning(path: Path) -> Tuning:
    """Read what write_tuning wrote. Raises RecordError naming the file where it is not complete and unaltered."""
    content = read_sealed(path)
    try:
        return Tuning(**content)
    except ValidationError as error:
        raise RecordError(
            f"{path}: not a tuning of this version ({error.errors()[0]['msg']}). Delete the file and run snakemake "
            "again: trials that fit are not run again."
        ) from error
