"""The rule ``tune``: trials of one method's hyper-parameters, and the choice of the best by validation.

Every method has the same number of trials. The first is of the default values, so that tuning only ever chooses what
beat them; the others are proposed by Optuna's tree-structured Parzen estimator (TPE; Bergstra, Bardenet, Bengio, Kégl:
Algorithms for Hyper-Parameter Optimization, NeurIPS 2011), which draws at random until it has seen ten trials: with
that many or fewer, all is random search. No trial is pruned.

What is proposed for trial n depends on the trials before it and on a seed derived from n, never on the process: a
study that is interrupted goes on exactly as it would have, and one that is given more trials runs the new ones only.
Finished trials are kept in an undeclared file (Snakemake deletes declared ones before a rerun), and used only where its
key agrees, up to the first that failed for a reason of the moment (memory, time), which is tried again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from distillbench.config.config import TUNING_SEEDS_FROM
from distillbench.jobs.train import FINISHED, Job
from distillbench.locks import locked
from distillbench.plan.tuning import (
    RANDOM_TRIALS,
    Space,
    Trial,
    Tuning,
    Values,
    defaults,
    in_words,
    with_values,
    write_tuning,
)
from distillbench.record import RecordError, Status, canonical_json, digest, read_sealed, write_sealed

log = logging.getLogger("distillbench")

Evaluate = Callable[[int, Values], Trial]  # the trial of this number, with these values


def tune(
    results: str,
    run: dict[str, Any],
    space: Space,
    asked: dict[str, Any],
    sources: list[str],
    execution: dict[str, Any],
    file: str,
) -> str:
    """Choose a method's hyper-parameters and write them to ``file``. Returns a line that sums the job up.

    run: a student's job with the seeds of the trials (see Grid.tuning_params). asked: the config's ``tune``. One
    process at a time.
    """
    if min(run["seeds"]) < TUNING_SEEDS_FROM:
        raise ValueError(
            f"seed {min(run['seeds'])} is a reported one: trials are run with seeds from {TUNING_SEEDS_FROM}"
        )
    job = Job(results, 0, run, sources, execution, 0)
    own, kept = defaults(space, run), job.folder / "trials.json"
    sampler = f"TPE (Optuna {metadata.version('optuna')})"
    key = digest(job.keys(), space, sampler)
    name = f"{job.cell.dataset}/{job.cell.pair}/{job.method}"
    begun = time.monotonic()
    job.folder.mkdir(parents=True, exist_ok=True)
    with locked(job.folder / ".trials.lock"):
        done = _kept(kept, key)

        def evaluate(number: int, values: Values) -> Trial:
            title = (
                f"{name}: trial {number} ({number + 1} of {asked['trials']}), {in_words(values) or 'nothing to vary'}"
            )
            log.info("%s, begins", title)
            student = Job(results, 0, with_values(run, values), sources, execution, 0)
            trial = _trial(number, values, student, title)
            passed, left = time.monotonic() - begun, asked["trials"] - number - 1
            told = f"validation {trial.val:.4f}" if trial.val is not None else f"{trial.status}: {trial.reason}"
            log.info("%s: %s; about %.0f s left", title, told, passed / (number + 1 - len(done)) * left)
            return trial

        def keep(trials: Sequence[Trial]) -> None:
            content = {"key": key, "trials": [trial.model_dump(mode="json") for trial in trials]}
            write_sealed(kept, content)

        scope = (job.cell.dataset, job.cell.pair, job.method)
        trials = search(space, own, evaluate, asked["trials"], scope=scope, done=done, keep=keep)
    best = best_of(trials)
    tuning = Tuning(
        key=key,
        dataset=job.cell.dataset,
        pair=job.cell.pair,
        method=job.method,
        backend=job.cell.backend,
        metric=job.card.metric,
        resplit=job.card.resplit,
        asked=asked,
        seeds=run["seeds"],
        sampler=sampler,
        space=space,
        chosen=best.values,
        chosen_trial=best.number,
        reason="" if best.val is not None else f"no trial finished ({best.status}: {best.reason})",
        trials=trials,
    )
    write_tuning(Path(file), tuning)
    new = len(trials) - min(len(done), len(trials))
    return f"{name}: {_outcome(tuning)}; {new} of {len(trials)} trials run in {time.monotonic() - begun:.0f} s"


def search(
    space: Space,
    own: Values,
    evaluate: Evaluate,
    trials: int,
    *,
    scope: Sequence[str],
    done: Sequence[Trial] = (),
    keep: Callable[[Sequence[Trial]], None] = lambda _: None,
) -> list[Trial]:
    """So many trials: those that are ``done``, then new ones, the first of all with the method's ``own`` values.

    scope: data set, pair and method; studies draw independently. keep: called after each new trial with all there are.
    Values that were tried before are not run again, for a run has one result; it counts as a trial nevertheless. Where
    a run was skipped, which no value changes, the search ends.
    """
    found = list(done[:trials])
    while len(found) < trials:
        number = len(found)
        values = proposed(space, found, scope) if number else own
        text = canonical_json(values)  # 1 and True are equal, and not the same
        same = next((trial for trial in found if canonical_json(trial.values) == text), None)
        trial = same.model_copy(update={"number": number, "seconds": 0.0}) if same else evaluate(number, values)
        found.append(trial)
        if trial.status == "skipped":
            break
        keep(found)
    return found


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest score, the earliest of several; the first where none finished."""
    finished = [trial for trial in trials if trial.val is not None]
    return max(finished, key=lambda trial: (trial.val, -trial.number), default=trials[0])


def proposed(space: Space, trials: Sequence[Trial], scope: Sequence[str]) -> Values:
    """What TPE proposes after these trials.

    Numbers have three significant digits: what a footnote says is then what was trained. A trial that failed counts as
    worse than all that finished; one with values outside of the space, as defaults may be, is not shown to TPE.
    """
    import optuna

    from distillbench.seeds import derive

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {f"{of}/{name}": _distribution(each) for of, names in space.items() for name, each in names.items()}
    seed = derive(len(trials), "tune", *scope) % 2**32
    sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in trials:
        tried = {
            f"{of}/{name}": _shown(value, space[of][name])
            for of, names in trial.values.items()
            for name, value in names.items()
        }
        if all(_holds(known[name], value) for name, value in tried.items()):
            state = optuna.trial.TrialState.PRUNED if trial.val is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(optuna.create_trial(state=state, value=trial.val, params=tried, distributions=known))
    drawn = study.ask(known).params
    return {
        of: {name: _rounded(drawn[f"{of}/{name}"], each) for name, each in names.items()} for of, names in space.items()
    }


def _distribution(each: dict[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in each:
        return CategoricalDistribution(range(len(each["values"])))
    if each["whole"]:
        return IntDistribution(int(each["low"]), int(each["high"]), log=each["log"])
    return FloatDistribution(each["low"], each["high"], log=each["log"])


def _shown(value: Any, each: dict[str, Any]) -> Any:
    """As Optuna takes it: a number, and of choices their place, None if there is none. It takes 1 and True for one."""
    if "values" not in each:
        return value
    text = canonical_json(value)
    return next((place for place, choice in enumerate(each["values"]) if canonical_json(choice) == text), None)


def _holds(distribution: Any, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def _rounded(value: Any, each: dict[str, Any]) -> Any:
    if "values" in each:
        return each["values"][value]
    return value if each["whole"] else min(max(float(f"{value:.3g}"), each["low"]), each["high"])


class TrialError(RuntimeError):
    """A trial ended with an error in somebody's code; the message names the trial and the error."""


def _trial(number: int, values: Values, job: Job, title: str) -> Trial:
    """Train every seed, until one fails: the trial has no score then.

    Raises TrialError where code fails: as a trial without a score it would leave this method's values less tuned than
    others'. Trials before it are kept, and the next job goes on from there.
    """
    scores, seconds = list[float](), 0.0
    begun = time.monotonic()
    for outcome in job.validate(title):
        seconds = round(time.monotonic() - begun, 3)
        if outcome.status == "error":
            raise TrialError(f"{title}: {outcome.reason}")
        if outcome.val is None or outcome.status != "ok":
            status: Status = outcome.status  # type: ignore[assignment]
            return Trial(
                number=number, values=values, status=status, reason=outcome.reason, scores=scores, seconds=seconds
            )
        scores.append(outcome.val)
    return Trial(number=number, values=values, status="ok", scores=scores, val=fmean(scores), seconds=seconds)


def _kept(path: Path, key: str) -> list[Trial]:
    """The trials that are on disk, if their key agrees, up to the first that is to be tried again."""
    if not path.exists():
        return []
    try:
        content = read_sealed(path)
        trials = [Trial(**trial) for trial in content["trials"]] if content["key"] == key else []
    except (RecordError, ValidationError, KeyError) as error:
        log.warning("%s: cannot be used, the trials are run again (%s)", path, error)
        return []
    finished = list(takewhile(lambda trial: trial.status in FINISHED, trials))
    if len(finished) < len(trials):  # what was proposed after it had learnt from its failure
        again = trials[len(finished)]
        log.info("%s: trial %d (%s) and those after it are run again", path, again.number, again.status)
    return finished


def _outcome(tuning: Tuning) -> str:
    if tuning.val_chosen is None:
        return f"the default values are kept, {tuning.reason}"
    before = "failed" if tuning.val_default is None else f"{tuning.val_default:.4f}"
    if not tuning.chosen_trial:
        return f"the default values are kept ({in_words(tuning.chosen) or 'nothing to vary'}), validation {before}"
    return f"{in_words(tuning.chosen)} (trial {tuning.chosen_trial}), validation {before} → {tuning.val_chosen:.4f}"
