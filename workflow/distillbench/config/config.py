"""The config file, checked: what runs. How it runs (cores, cluster) is Snakemake's profile. Imports no torch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
)
from pydantic import ValidationError as PydanticError

from distillbench.config.specs import FOLDERS, MODELS, ModelSpec
from distillbench.params import LayerPair, LayerPairs, Parameters, Splits, suggestion
from distillbench.paths import home

# names become folders: nothing that could leave results/ or confuse a shell
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]
BackendName = Literal["pyg", "dgl", "csr"]
# seeds of the runs that hyper-parameters are chosen by, from here on: reported seeds end below, however many there are
TUNING_SEEDS_FROM = 1_000_000


def _none_is_empty(value: Any) -> Any:
    return {} if value is None else value


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := {value for value in values if values.count(value) > 1}:
        raise ValueError(f"{', '.join(sorted(repeated))} is there more than once")
    return values


class ConfigError(ValueError):
    """A config that cannot run; the message names the file, the key, the value and the nearest valid one."""


class Training(Parameters):
    """One training run: Adam, early stopping on validation, the best epoch's weights kept.

    patience: epochs without a better validation score before stopping (None: never). schedule: the learning rate stays
    as it is, or falls along half a cosine to nothing over the epochs. batch_size: graphs a step (inductive data sets; a
    transductive graph is one batch). weight_decay: of the model's weights and of its method's trained parts, such as
    projectors, but not of adversaries.
    """

    epochs: PositiveInt = 200
    patience: PositiveInt | None = None
    learning_rate: PositiveFloat = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 32


class Evaluation(Parameters):
    """How predictions are scored and an epoch is selected. Anything but the defaults is an oddity of released code.

    decision: a label of several is predicted at probability 0.5, or at logit 0.5 (probability 0.622). score: of the
    whole part of the split at once, or the mean over its batches. selection: the epoch with the best validation score;
    the last evaluated epoch with a better validation score *or* a lower training loss than the one selected before; or
    the last epoch. validate_every: epochs (the first is always evaluated).
    """

    decision: Literal["probability", "logit"] = "probability"
    score: Literal["split", "batches"] = "split"
    selection: Literal["validation", "validation-or-loss", "last"] = "validation"
    validate_every: PositiveInt = 1


class Protocol(Evaluation):
    """The same for every method of a table: how students are evaluated, and what follows.

    setting: in the transductive one all nodes and edges are there in training, without the labels of the test part; in
    production (Zhang et al., GLNN, ICLR 2022) a fifth of the test nodes is not, nor are its edges, for teachers and
    students. The metric is of the whole test part in both; the records tell seen from unseen.
    distill_nodes: which nodes the distillation terms see in transductive tasks. teacher_selection: ``selection`` for
    teachers. train_projectors: whether those of the methods are trained. ``protocol: official`` stands for OFFICIAL:
    what the authors' released code of LSP does. splits: of the config's protocol alone, since all pairs of a data set
    share a seed's split; the default of data sets' parameter of that name, and no part of a run's protocol.
    """

    setting: Literal["transductive", "production"] = "transductive"
    distill_nodes: Literal["all", "train"] = "all"
    teacher_selection: Literal["validation", "validation-or-loss", "last"] = "validation"
    train_projectors: bool = True
    splits: Annotated[Splits | None, Field(exclude=True)] = None


USUAL = Evaluation()
# DistillGCN.PyTorch: main.py (train_student, train_teacher), utils.py (evaluate), auxilary_loss.py (optimizing)
OFFICIAL: dict[str, Any] = {
    "decision": "logit",
    "score": "batches",
    "selection": "validation-or-loss",
    "teacher_selection": "last",
    "validate_every": 10,
    "train_projectors": False,
}


def _named_protocol(value: Any) -> Any:
    if isinstance(value, str) and value != "official":
        raise ValueError(f"unknown protocol{suggestion(value, ['official'])}, or keys and values")
    return OFFICIAL if value == "official" else value


AnyProtocol = Annotated[Protocol, BeforeValidator(_named_protocol)]


class Published(Parameters):
    """Which rows of the table of published results a pair is beside (see distillbench/reference/published.csv).

    teacher, student: as named there. sources: papers; all by default. methods: variant of ours -> method there, where
    the names differ.
    """

    teacher: str
    student: str
    sources: tuple[str, ...] = ()
    methods: dict[str, str] = {}


class Resources(Parameters):
    """What a job that trains is thought to need: a batch system or a cloud is asked for it (see profiles/).

    memory_mb: of one process, libraries (about 1 GB), data and model. run_minutes: of one run; a job has as many runs
    as seeds, a study as trials and seeds. gpus: 0, or as many as the libraries use: one. Of the config, a data set and
    a pair the last that gives a value decides it. A job that is killed for asking too little is tried again with more.
    """

    memory_mb: Annotated[int, Field(ge=100)] | None = None
    run_minutes: PositiveFloat | None = None
    gpus: Annotated[int, Field(ge=0, le=1)] | None = None


class Pair(Parameters):
    """A teacher and a student. ``teacher_training`` where the teacher is trained differently.

    teachers: further ones by name, for methods of several (mskd); trained as the pair's own. layers: the (student,
    teacher) hidden layers that methods match, where a method's own parameters do not say. methods: those of the config
    that are run; by default all that apply. protocol: where it differs from the config's.
    published: the published results to set beside ours. resources: where they differ from the data set's.
    """

    teacher: ModelSpec
    student: ModelSpec
    training: Training = Training()
    teacher_training: Training | None = None
    teachers: dict[Name, ModelSpec] = {}
    layers: LayerPairs | None = None
    methods: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    protocol: AnyProtocol | None = None
    published: Published | None = None
    resources: Resources = Resources()


class DatasetConfig(Parameters):
    """One data set: its file (by default its name), its parameters and the pairs trained on it.

    resources: where they differ from the config's.
    """

    dataset: Name | None = None
    params: dict[str, Any] = {}
    resources: Resources = Resources()
    pairs: Annotated[dict[Name, Pair], Field(min_length=1)]


Margin = Annotated[float, Field(gt=0, lt=1)]


class Compare(Parameters):
    """baseline: the method others are compared with. alpha: level of the tests, of all methods of a data set and pair
    together. delta: margin of equivalence of two methods, and of the libraries, as a fraction of the metric; for all,
    or
    by data set, or by data set and pair: 0.01 where none is given."""

    baseline: Name = "supervised"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    delta: Margin | dict[str, Margin | dict[str, Margin]] = 0.01


class Tune(Parameters):
    """Hyper-parameters are chosen by the same number of trials for every method, the student alone included.

    trials: per data set, pair and method; the first is of the default values. seeds: a trial's score is the mean over
    as many, which are never reported ones (from TUNING_SEEDS_FROM on). learning_rate: the pair's learning rate is
    searched from itself divided by this factor to itself times it, for every method: without that, methods would have
    their trials and the student alone none. 1: it is not searched.
    """

    trials: Annotated[int, Field(ge=2)] = 20
    seeds: PositiveInt = 2
    learning_rate: Annotated[float, Field(ge=1)] = 4.0

    @property
    def used_seeds(self) -> list[int]:
        """The seeds of every trial."""
        return list(range(TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + self.seeds))


def _none_or_tune(value: Any) -> Any:
    if isinstance(value, str) and value != "none":
        raise ValueError(f"unknown value{suggestion(value, ['none'])}, or keys and values such as {{trials: 20}}")
    return None if value == "none" else value


class StructureFigures(Parameters):
    """What `snakemake structure_figures` draws: distances in feature space from one marked point to all others.

    seed: the run. methods: students beside the teacher. epochs: of the students' training, besides the selected one.
    graph: which of the test part. node: the marked one (None: chosen). layers: (student, teacher), by default the
    pair's first, else the last hidden of both.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    methods: Annotated[tuple[Name, ...], Field(min_length=1)] = ("lsp", "supervised")
    epochs: tuple[PositiveInt, ...] = ()
    graph: Annotated[int, Field(ge=0)] = 0
    node: Annotated[int, Field(ge=0)] | None = None
    layers: LayerPair | None = None


class Profile(Parameters):
    """What is measured of teachers and students besides time, memory and size. energy: ISO code (three letters) of the
    country, which codecarbon asks for, to measure energy, too; None: it is not measured."""

    energy: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None


def _asked_or_not(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"unknown value{suggestion(value, ['true', 'false'])}, or keys such as {{energy: DEU}}")
    return {} if value is True else None if value is False else value


class Execution(Parameters):
    """seeds_per_job: seeds trained by one process; None: see Grid.seeds_per_job. run_seconds: time budget of one run;
    past it the run gets the status "timeout". checkpoint_seconds: how often a long run is saved. logits: kept of what a
    run predicted on validation and on test rows, where either has no more of them (rows times classes); classes or
    labels are always kept. warm_start: fork jobs from a process that has the libraries imported, instead of importing
    them for each."""

    seeds_per_job: PositiveInt | None = None
    run_seconds: PositiveFloat = 3600.0
    checkpoint_seconds: PositiveFloat = 60.0
    logits: NonNegativeInt = 1_000_000
    warm_start: bool = True


Folder = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]  # ~ is the user's own


class Config(Parameters):
    """The whole file. See config/config.yaml, which explains every key."""

    results: Folder = "results"
    export: Folder | None = None
    plugins: tuple[Annotated[str, AfterValidator(os.path.expanduser)], ...] = ()
    seeds: Annotated[PositiveInt, Field(strict=True, le=TUNING_SEEDS_FROM)]
    backends: Annotated[tuple[BackendName, ...], Field(min_length=1), AfterValidator(_each_once)]
    datasets: Annotated[dict[Name, DatasetConfig], Field(min_length=1)]
    methods: Annotated[dict[Name, Annotated[dict[str, Any], BeforeValidator(_none_is_empty)]], Field(min_length=1)]
    protocol: AnyProtocol = Protocol()
    tune: Annotated[Tune | None, BeforeValidator(_none_or_tune)] = None
    compare: Compare = Compare()
    execution: Execution = Execution()
    resources: Resources = Resources()
    structure: StructureFigures = StructureFigures()
    profile: Annotated[Profile | None, BeforeValidator(_asked_or_not)] = Profile()


def read_config(values: dict[str, Any], files: Sequence[str | Path], root: Path | None = None) -> Config:
    """Check the values of a config; ``files`` are named in the error. Raises ConfigError with every problem found.

    root: of the folder ``models`` with models that are plug-ins, beside that of the working directory and the config's
    ``plugins``.
    """
    own = values.get("plugins") if isinstance(values, dict) else None
    named = [each for each in own if isinstance(each, str)] if isinstance(own, list | tuple) else []
    try:
        return Config.model_validate(values, context={FOLDERS: plugin_folders("model", root, named)})
    except PydanticError as error:
        problems = [problem for each in error.errors() for problem in _problems(each)]
        raise ConfigError(f"{name_files(files)}:\n" + "\n".join(f"  {problem}" for problem in problems)) from None


def plugin_folders(kind: str, root: Path | None, plugins: Sequence[str]) -> list[Path]:
    """Where the plug-ins of a kind are: those that are shipped, those of a folder that is no checkout, the config's."""
    here, shipped = Path(f"{kind}s"), (root or home()) / f"{kind}s"
    # what `distillbench new` makes there
    own = [here] if here.is_dir() and here.resolve() != shipped.resolve() else []
    found = {folder.resolve(): folder for folder in (shipped, *own)}
    for each in plugins:
        try:  # what is no folder's name is named by folder_problem
            if (folder := Path(each).expanduser()).is_dir():
                found.setdefault(folder.resolve(), folder)
        except (OSError, ValueError, RuntimeError):
            continue
    return list(found.values())  # each once


def name_files(files: Sequence[str | Path]) -> str:
    """How an error names the config."""
    return ", ".join(str(file) for file in files) or "config"


def _problems(error: Any) -> list[str]:
    """One problem, or those of a model that is a plug-in."""
    if error["type"] != "model_options":
        return [_explain(error)]
    return [_explain(each | {"loc": (*error["loc"], *each["loc"])}) for each in error["ctx"]["errors"]]


def _explain(error: Any) -> str:
    steps = list(error["loc"])
    # the tag of a discriminated union (gat, dgcnn, ...) is in the location of an error but not in the file
    tags = {
        i
        for i in range(1, len(steps))
        if steps[i] in MODELS and (steps[i - 1] in ("teacher", "student") or steps[i - 2] == "teachers")
    }
    place = ".".join(str(step) for i, step in enumerate(steps) if i not in tags)
    value, message, context = error.get("input"), error["msg"].removeprefix("Value error, "), error.get("ctx", {})
    if error["type"] == "unknown_model":
        tag, message = context["tag"], f"unknown model {context['tag']!r}{suggestion(context['tag'], context['known'])}"
        return f"{place}.model: {tag!r}: {message}"
    if error["type"] == "literal_error":
        choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ",").split(",")]
        message = f"unknown value {value!r}{suggestion(value, choices)}"
    elif not isinstance(value, dict | list):
        message = f"{value!r}: {message}"
    return f"{place}: {message}" if place else message
