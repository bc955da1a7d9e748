"""What tuning did, for readers of the tables: footnotes, and one table of all trials. No torch."""

import csv as csv_module
import io
from collections.abc import Sequence
from pathlib import Path

from distillbench.plan.tuning import RANDOM_TRIALS, Tuning, in_words, read_tuning
from distillbench.record import canonical_json, write_atomically
from distillbench.wording import NOTHING, backend_label, metric_label

COLUMNS = ("dataset", "pair", "method", "backend", "trial", "values", "val", "scores", "status", "reason", "chosen")


def tuning_table(files: Sequence[str], csv: str) -> str:
    """Write all trials of the files of chosen values to ``csv``. Returns a line that sums the job up.

    One row per data set, pair, method and trial. val: mean validation score of the seeds, a fraction; scores: of each
    seed, by seed; values, scores: JSON. chosen: yes for the trial whose values are used. Raises RecordError.
    """
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    tunings = [read_tuning(Path(file)) for file in files]
    for tuning in tunings:
        for trial in tuning.trials:
            scores = {str(seed): score for seed, score in zip(tuning.seeds, trial.scores, strict=False)}
            writer.writerow([
                tuning.dataset, tuning.pair, tuning.method, tuning.backend, trial.number,
                canonical_json(trial.values), trial.val, canonical_json(scores), trial.status, trial.reason,
                "yes" if trial.number == tuning.chosen_trial else "no",
            ])  # fmt: skip
    write_atomically(Path(csv), text.getvalue())
    return f"{sum(len(tuning.trials) for tuning in tunings)} trials of {len(tunings)} tunings"


def footnotes(files: Sequence[str]) -> list[str]:
    """The budget, with what had less of it, then a sentence a data set and pair: what was chosen, and what it brought.

    None where nothing was tuned. Raises RecordError naming a file that cannot be trusted.
    """
    tunings = [read_tuning(Path(file)) for file in files]
    if not tunings:
        return []
    places: dict[tuple[str, str], list[Tuning]] = {}
    for tuning in tunings:
        places.setdefault((tuning.dataset, tuning.pair), []).append(tuning)
    return [_budget(tunings), *(_chosen(*place, of_pair) for place, of_pair in places.items())]


def _budget(tunings: Sequence[Tuning]) -> str:
    first = tunings[0]
    trials, factor, seeds = first.asked["trials"], first.asked["learning_rate"], first.seeds
    numbers = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    few = trials <= RANDOM_TRIALS
    drawn = "which draws at random with so few trials" if few else f"the first {RANDOM_TRIALS - 1} drawn at random"
    text = (
        f"Tuning: {trials} trials per method, the student alone included: the default values, then {trials - 1} by "
        f"{first.sampler}, {drawn}.{_fewer(tunings)} A trial's score is the mean validation score of {len(seeds)} "
        f"{'seeds' if len(seeds) > 1 else 'seed'} ({numbers}), not reported; the values of the best are used with "
        "every library."
    )
    if factor > 1:
        text += f" The learning rate was searched within a factor of {factor:g}, for every method."
    included = ", the learning rate among them" if factor > 1 else ""
    text += (
        f" How many hyper-parameters were searched is said of each method{included}: as many trials are spread over "
        "different numbers of them."
    )
    redrawn = list(dict.fromkeys(tuning.dataset for tuning in tunings if tuning.resplit))
    if redrawn:
        text += (
            f" The split of {', '.join(redrawn)} is redrawn with the seed: nodes that tuning trained and validated on "
            "may be test nodes of reported seeds."
        )
    return text


def _fewer(tunings: Sequence[Tuning]) -> str:
    """Which methods had fewer trials than the others, and why: their search ended."""
    ended: dict[tuple[str, ...], list[str]] = {}
    for tuning in tunings:
        if len(tuning.trials) < tuning.asked["trials"]:
            last = tuning.trials[-1]
            why = (f"{tuning.dataset}, {tuning.pair}", str(len(tuning.trials)), f"{last.status}: {last.reason}")
            ended.setdefault(why, []).append(tuning.method)
    texts = [f"{where}: {', '.join(methods)} {number} ({why})" for (where, number, why), methods in ended.items()]
    return f" Fewer trials: {'; '.join(texts)}." if texts else ""


def _chosen(dataset: str, pair: str, tunings: Sequence[Tuning]) -> str:
    metric, backend = metric_label(tunings[0].metric), backend_label(tunings[0].backend)
    texts = []
    for tuning in tunings:
        failed = sum(trial.val is None for trial in tuning.trials)
        text = f"{tuning.method} ({tuning.searched} searched)"
        text += f" {_percent(tuning.val_default)} → {_percent(tuning.val_chosen)}"
        if tuning.spread:
            text += f" [{_percent(tuning.spread[0])}, {_percent(tuning.spread[1])}]"
        if tuning.reason:
            text += f" defaults, {tuning.reason}"
        elif not tuning.chosen_trial:
            text += f" the defaults: {in_words(tuning.chosen)}" if in_words(tuning.chosen) else " nothing to vary"
        else:
            text += f" {in_words(tuning.chosen)}"
        texts.append(text + (f" ({failed} of {len(tuning.trials)} trials failed)" if failed else ""))
    return (
        f"Tuned, {dataset}, {pair} (with {backend}): validation {metric} in %, default → chosen values [lowest, "
        f"highest trial], and the values: {'; '.join(texts)}."
    )


def _percent(score: float | None) -> str:
    return NOTHING if score is None else f"{100 * score:.1f}"
