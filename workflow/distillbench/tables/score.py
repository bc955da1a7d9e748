"""Any metric of what finished runs predicted on their test part: from the stored files, without training."""

import math
import runpy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distillbench.calibration import calibration
from distillbench.params import TEACHER, suggestion
from distillbench.paths import Cell, Paths
from distillbench.predictions import ENDING, Part, agreement, read_part, score_of
from distillbench.record import Record, RecordError, read_record
from distillbench.wording import NOTHING, backend_label, backend_order

SCORE_COLUMNS = ["dataset", "pair", "backend", "method", "role", "seed", "score", "reason"]
NO_LOGITS = "no logits are stored"
Metric = Callable[[Part], float]  # raises ValueError with the reason where the part does not have what it needs


def accuracy(part: Part) -> float:
    """Share of the rows whose class is predicted; with several labels, of the label entries."""
    return float((part.predicted == part.y).mean())


def mean_class_accuracy(part: Part) -> float:
    """Mean, over the classes that occur, of the share of their rows that are predicted."""
    if part.y.ndim == 2:
        raise ValueError("is of one class a row")
    return score_of(replace(part, batch=None), "mean_class_accuracy")


def micro_f1(part: Part) -> float:
    """2tp / (2tp + fp + fn) over all rows and labels, or classes; 0 where nothing is true and nothing predicted."""
    y, predicted = _marks(part)
    marked = y.sum() + predicted.sum()
    return float(2 * (y & predicted).sum() / marked) if marked else 0.0


def macro_f1(part: Part) -> float:
    """Mean F1 of the labels, or of the classes that occur or are predicted; 0 for one with neither."""
    y, predicted = _marks(part)
    hits, marked = 2 * (y & predicted).sum(axis=0), y.sum(axis=0) + predicted.sum(axis=0)
    return float((hits / np.maximum(marked, 1)).mean())


def roc_auc(part: Part) -> float:
    """Share of the pairs of a row of class 1 and one of class 0 whose scores are in that order, ties counted half."""
    if part.score is None:
        if part.y.ndim == 2 or (part.logits is not None and part.logits.shape[1] != 2):
            raise ValueError("is of two classes, one a row")
        logits = _logits(part)
        part = replace(part, score=logits[:, 1] - logits[:, 0])
    return score_of(replace(part, batch=None), "roc_auc")


def _calibrated(name: str) -> Metric:
    return lambda part: calibration(_logits(part), part.y)[name]


METRICS: dict[str, Metric] = {
    "accuracy": accuracy, "mean_class_accuracy": mean_class_accuracy, "balanced_accuracy": mean_class_accuracy,
    "micro_f1": micro_f1, "macro_f1": macro_f1, "roc_auc": roc_auc, "nll": _calibrated("nll"),
    "ece": _calibrated("ece"),
}  # fmt: skip
KNOWN = (*METRICS, "agreement")


def _marks(part: Part) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """True and predicted labels [N, C]; of classes, one a row."""
    if part.y.ndim == 2:
        return part.y, part.predicted
    classes = np.union1d(part.y, part.predicted)
    return part.y[:, None] == classes, part.predicted[:, None] == classes


def _logits(part: Part) -> NDArray[np.float64]:
    if part.logits is None:
        raise ValueError(NO_LOGITS)
    return part.logits.astype(np.float64)


def metric_of(name: str) -> tuple[str, Metric]:
    """A metric's name and function: one of KNOWN, or ``FILE.py:function``, an ``f(y_true, y_pred, scores) -> float``.

    That is given classes [N] or labels [N, C], and logits [N, C] where they are stored, else None. Raises ValueError
    naming the nearest metric, or what the file does not have.
    """
    if name in METRICS:
        return name, METRICS[name]
    file, _, function = name.rpartition(":")
    if not file:
        raise ValueError(f"unknown metric {name!r}{suggestion(name, KNOWN)}, or FILE.py:function")
    if not Path(file).is_file():
        raise ValueError(f"{file}: no such file")
    found = runpy.run_path(file)
    own = found.get(function)
    if not callable(own):
        names = [each for each, value in found.items() if callable(value) and not each.startswith("_")]
        raise ValueError(f"{file}: has no function {function!r}{suggestion(function, names)}")

    def find(part: Part) -> float:
        try:
            return float(own(part.y, part.predicted, None if part.logits is None else _logits(part)))
        except Exception as error:
            raise ValueError(f"{name}: {type(error).__name__}: {error}") from error

    return function, find


def score_table(results: Path, metric: str) -> pd.DataFrame:
    """The metric of every finished run in a folder of results: a row each, SCORE_COLUMNS; ``score`` is NaN, with the
    reason, where a run's predictions do not have what the metric needs. ``agreement`` is with the pair's teacher.

    nll and ece are as the record has them, of full logits, where it has them. Scores are of all test rows at once, by
    the decisions that were scored when they were trained. Raises ValueError as ``metric_of`` does, RecordError with
    every file that cannot be trusted.
    """
    find = None if metric == "agreement" else metric_of(metric)[1]
    paths, rows, problems = Paths(results), [], []
    for path in paths.records():
        try:
            record = read_record(path)
            if record.status != "ok":
                continue
            try:
                score, reason = _score(paths, record, metric, find), ""
            except ValueError as error:
                if isinstance(error, RecordError):
                    raise
                score, reason = math.nan, str(error)
        except RecordError as error:
            problems.append(str(error))
            continue
        names = [record.dataset, record.pair, record.backend, record.method, record.role, record.seed]
        rows.append([*names, score, reason])
    if problems:
        raise RecordError("\n".join(problems))
    table = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    order = table.assign(
        _backend=table["backend"].map(lambda name: backend_order(name)[0]), _student=table["role"] != "teacher"
    )
    return order.sort_values(["dataset", "pair", "_backend", "_student", "method", "seed"])[SCORE_COLUMNS]


def _score(paths: Paths, record: Record, metric: str, find: Metric | None) -> float:
    if metric in record.calibration:
        return record.calibration[metric]
    part = _test_part(paths, record)
    if find is not None:
        return find(part)
    if record.role == "teacher":
        raise ValueError("is a teacher")
    cell = Cell(record.dataset, record.backend, record.pair)
    teacher = paths.runs(cell, TEACHER) / f"seed-{record.seed}.json"
    if not teacher.is_file():
        raise ValueError("its teacher has no record here")
    return agreement(part, _test_part(paths, read_record(teacher)))


def _test_part(paths: Paths, record: Record) -> Part:
    if "predictions" not in record.digests:
        raise ValueError("its predictions were not stored")
    folder = paths.runs(Cell(record.dataset, record.backend, record.pair), record.method)
    return read_part(folder / f"seed-{record.seed}.{ENDING}", expected=record.digests["predictions"])


def score_text(table: pd.DataFrame, metric: str) -> str:
    """``score_table`` for people: mean ± sample standard deviation over the seeds, a line per method; who has none."""
    lines = [("data set", "pair", "library", "method", metric, "n")]
    for names, rows in table.groupby(["dataset", "pair", "backend", "method"], sort=False):
        dataset, pair, backend, method = map(str, names)
        scores = rows["score"].dropna()
        if len(scores):
            spread = f" ± {scores.std():.4f}" if len(scores) > 1 else ""
            lines.append(
                (dataset, pair, backend_label(backend), method, f"{scores.mean():.4f}{spread}", str(len(scores)))
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    teachers = (table["role"] == "teacher") & (metric == "agreement")
    left: Any = Counter(table.loc[table["score"].isna() & ~teachers, "reason"])
    text += ["", *(f"{count} runs without: {reason}" for reason, count in left.items())] if left else []
    return "\n".join(text if len(lines) > 1 else [f"no run has it: {NOTHING}", *text[1:]])
