"""What runs predicted: a file beside each record, and what each row of the test part adds to the run's score. No torch.

``seed-S.predictions.npz`` holds the validation and the test part of a finished run, its record the file's digest. So
any metric can be had without training again, and a run's score be seen as a mean over rows, whose spread says how much
another draw of the rows would have changed it.

``rows.npz`` holds the rows of many runs: one bit a row where the score is an accuracy.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillbench.record import RecordError, file_digest, write_atomically

SCHEMA = 1
ENDING = "predictions.npz"
PartName = Literal["val", "test"]


@dataclass(frozen=True)
class Part:
    """What was predicted on one part of the split.

    rows: [N] int64, ascending: nodes, or graphs in tasks of graphs, as the whole data set numbers them. y, predicted:
    [N] classes, or [N, C] bool; predicted is by the decision that was scored. logits: [N, C], kept as float16. score:
    [N] float64, logit 1 minus logit 0, where the metric ranks the rows. batch: [N], where the score is a mean over
    batches.
    """

    rows: NDArray[np.int64]
    y: NDArray[Any]
    predicted: NDArray[Any]
    logits: NDArray[Any] | None = None
    score: NDArray[np.float64] | None = None
    batch: NDArray[np.int64] | None = None


def pack(predictions: Mapping[PartName, Part]) -> bytes:
    """The content of a file of predictions: integers as small as they can be, labels as bits, lightly compressed."""
    arrays: dict[str, NDArray[Any]] = {"schema": np.array(SCHEMA)}
    for name, part in predictions.items():
        arrays[f"{name}_rows"] = _small(part.rows)
        if part.y.ndim == 2:
            arrays[f"{name}_labels"] = np.array(part.y.shape[1])
            arrays |= {f"{name}_{key}": np.packbits(getattr(part, key), axis=1) for key in ("y", "predicted")}
        else:
            arrays |= {f"{name}_{key}": _small(getattr(part, key)) for key in ("y", "predicted")}
        if part.logits is not None:
            largest = np.finfo(np.float16).max
            arrays[f"{name}_logits"] = np.clip(part.logits, -largest, largest).astype(np.float16)
        if part.score is not None:
            arrays[f"{name}_score"] = part.score
        if part.batch is not None:
            arrays[f"{name}_batch"] = _small(part.batch)
    return _npz(arrays)


def read_part(path: Path, name: PartName = "test", *, expected: str | None = None, logits: bool = True) -> Part:
    """Read a part of a run's predictions. expected: the digest that its record has of the file.

    Raises RecordError naming the file where it is missing, damaged or of another run.
    """
    if not path.is_file():
        raise RecordError(f"{path}: is missing")
    if expected is not None and file_digest(path) != expected:
        raise RecordError(f"{path}: does not match its record")
    arrays = _arrays(path, "predictions", lambda key: key == "schema" or _is_of(key, name, logits))
    try:
        if arrays["schema"] != SCHEMA:
            raise ValueError(f"of another version of distillbench (schema {arrays['schema']}, here {SCHEMA})")
        return _part({key.removeprefix(f"{name}_"): array for key, array in arrays.items()})
    except (KeyError, ValueError) as error:
        raise RecordError(f"{path}: corrupt predictions: {error}") from error


def _is_of(key: str, name: PartName, logits: bool) -> bool:
    return key.startswith(f"{name}_") and (logits or not key.endswith("_logits"))


def _part(arrays: Mapping[str, NDArray[Any]]) -> Part:
    y, predicted = arrays["y"], arrays["predicted"]
    if "labels" in arrays:
        count = int(arrays["labels"])
        y, predicted = (np.unpackbits(bits, axis=1, count=count).astype(bool) for bits in (y, predicted))
    else:
        y, predicted = y.astype(np.int64), predicted.astype(np.int64)
    if not len(arrays["rows"]) == len(y) == len(predicted):
        raise ValueError("its rows are not as many as its predictions")
    batch = arrays["batch"].astype(np.int64) if "batch" in arrays else None
    return Part(arrays["rows"].astype(np.int64), y, predicted, arrays.get("logits"), arrays.get("score"), batch)


def agreement(student: Part, teacher: Part) -> float:
    """Share of the rows on which two models predict the same; with several labels, of the label entries.

    Raises ValueError where the two are not of the same rows.
    """
    if not np.array_equal(student.rows, teacher.rows) or student.predicted.shape != teacher.predicted.shape:
        raise ValueError("the teacher's predictions are of other rows")
    return float((student.predicted == teacher.predicted).mean())


# A score as a mean over rows


class RowScores(NamedTuple):
    """rows: [N] int64, ids of the test rows, ascending. values: [N] float32; their mean is the test score.

    Of accuracy, the mean of bits. Of a metric that is no mean over rows, the values are the score and N times the row's
    influence on it, so that sqrt(var(values) / N) is the score's standard error over draws of the rows, to first order:
    the infinitesimal jackknife (Jaeckel, Bell Laboratories MM 72-1215-11, 1972; Efron, The Jackknife, the Bootstrap and
    Other Resampling Plans, SIAM 1982).
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float32]


RunKey = tuple[str, str, str, str, int]  # dataset, backend, pair, method ("teacher" for the pair's teacher), seed
Rows = Mapping[RunKey, RowScores]


def row_scores(part: Part, metric: str) -> RowScores:
    """What each row adds to the score of a run. ``metric`` is the record's: accuracy, micro_f1, roc_auc, ….

    Raises ValueError where the metric is unknown here, or the part lacks what it needs.
    """
    return RowScores(part.rows, _values(part, metric).astype(np.float32))


def score_of(part: Part, metric: str) -> float:
    """The score of a run, as its record has it. Raises ValueError as ``row_scores`` does."""
    return float(_values(part, metric).mean())


def _values(part: Part, metric: str) -> NDArray[np.float64]:
    if metric not in _VALUES:
        raise ValueError(f"no row scores of the metric {metric!r}")
    find = _VALUES[metric]
    if part.batch is None or not part.batch.any():
        return find(part)
    of_batches = np.zeros(len(part.rows))
    for number in np.unique(part.batch):
        inside = part.batch == number
        of_batches[inside] = find(_some(part, inside))
    return _mean_over(part.batch, of_batches)


def _some(part: Part, which: NDArray[np.bool_]) -> Part:
    score = None if part.score is None else part.score[which]
    return Part(part.rows[which], part.y[which], part.predicted[which], score=score)


def _mean_over(groups: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values whose mean is the mean, over the groups, of the mean within each: score + N/(G·N_g) · (v − mean_g)."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=values) / sizes
    scaled = (values - means[group]) * (len(values) / (len(sizes) * sizes[group]))
    return np.asarray(means.mean() + scaled)


def _accuracy(part: Part) -> NDArray[np.float64]:
    return np.asarray(part.predicted == part.y, dtype=np.float64)


def _mean_class_accuracy(part: Part) -> NDArray[np.float64]:
    return _mean_over(part.y, _accuracy(part))


def _micro_f1(part: Part) -> NDArray[np.float64]:
    """F + N · (2tp_i − F · (2tp_i + fp_i + fn_i)) / Σ(2tp + fp + fn); 0 where nothing is true and nothing predicted."""
    hits = 2.0 * (part.predicted & part.y).sum(axis=1)
    marked = part.predicted.sum(axis=1) + part.y.sum(axis=1)
    total = marked.sum()
    if not total:
        return np.zeros(len(hits))
    score = hits.sum() / total
    return np.asarray(score + len(hits) * (hits - score * marked) / total)


def _roc_auc(part: Part) -> NDArray[np.float64]:
    """The structural components of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), scaled to one mean.

    V10 of a row of class 1 is the share of class 0 below it, V01 of a row of class 0 the share of class 1 above it,
    ties counted half; the area is the mean of either. 0.5 where one of the classes is not there, as the score is.
    """
    if part.score is None:
        raise ValueError("no scores of the rows are stored, which roc_auc is of")
    positive = part.y == 1
    above, below = part.score[positive], part.score[~positive]
    if not len(above) or not len(below):
        return np.full(len(part.y), 0.5)
    components = np.zeros(len(part.y))
    components[positive] = _share_below(above, below)
    components[~positive] = 1 - _share_below(below, above)
    area, n = components[positive].mean(), len(components)
    return np.asarray(area + (components - area) * n / np.where(positive, len(above), len(below)))


def _share_below(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each score the share of ``others`` below it, ties counted half."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return np.asarray(both / (2 * len(ordered)))


_VALUES = {
    "accuracy": _accuracy, "mean_class_accuracy": _mean_class_accuracy, "micro_f1": _micro_f1, "roc_auc": _roc_auc,
}  # fmt: skip


# The rows of many runs in one file


def write_rows(path: Path, rows: Rows) -> None:
    """Write the row scores of runs, atomically, with a digest of the content.

    Ids that several runs share, as all of a data set and seed do, are there once, as bits; values that are all 0 or 1
    are bits, others float32. Raises ValueError where ids are not ascending.
    """
    shared: dict[bytes, int] = {}
    ids: list[NDArray[np.uint8]] = []
    runs: list[list[Any]] = []
    bits: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
    values: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    for key, (own, scores) in rows.items():
        if len(own) != len(scores) or (np.diff(own) <= 0).any() or (own < 0).any():
            raise ValueError(f"{'/'.join(map(str, key))}: ids of rows must be ascending, one for each value")
        place = shared.setdefault(np.asarray(own, np.int64).tobytes(), len(ids))
        if place == len(ids):
            there = np.zeros(int(own[-1]) + 1 if len(own) else 0, dtype=bool)
            there[own] = True
            ids.append(np.packbits(there))
        if binary := bool(np.isin(scores, (0, 1)).all()):
            bits.append(np.packbits(scores > 0.5))
        else:
            values.append(np.asarray(scores, np.float32))
        runs.append([*key[:4], int(key[4]), place, len(own), binary])
    arrays: dict[str, NDArray[Any]] = {
        "runs": np.frombuffer(json.dumps(runs, ensure_ascii=False).encode(), np.uint8),
        "id_bytes": np.array([len(each) for each in ids], np.int64),
        "ids": np.concatenate([np.zeros(0, np.uint8), *ids]),
        "bits": np.concatenate(bits),
        "values": np.concatenate(values),
    }
    write_atomically(path, _npz(arrays | {"digest": _digest(arrays)}))


def read_rows(path: Path) -> dict[RunKey, RowScores]:
    """Read what ``write_rows`` wrote. Raises RecordError naming the file where it is missing or damaged."""
    if not path.is_file():
        raise RecordError(f"{path}: is missing: the rule collect makes it")
    arrays = _arrays(path, "rows")
    try:
        written = arrays.pop("digest")
        if not np.array_equal(written, _digest(arrays)):
            raise ValueError("its content does not match its digest")
        ends = arrays["id_bytes"].cumsum()
        ids = [np.flatnonzero(np.unpackbits(each)) for each in np.split(arrays["ids"], ends[:-1])] if len(ends) else []
        found: dict[RunKey, RowScores] = {}
        bit = value = 0
        for dataset, backend, pair, method, seed, place, n, binary in json.loads(arrays["runs"].tobytes()):
            if binary:
                size = (n + 7) // 8
                scores = np.unpackbits(arrays["bits"][bit : bit + size], count=n).astype(np.float32)
                bit += size
            else:
                scores = arrays["values"][value : value + n]
                value += n
            found[(dataset, backend, pair, method, seed)] = RowScores(ids[place], scores)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: corrupt rows: {error}. Delete it and run snakemake again") from error
    return found


def _digest(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        total.update(array.tobytes())
    return np.frombuffer(total.digest(), np.uint8)


# How arrays are stored


def _small(numbers: NDArray[Any]) -> NDArray[Any]:
    """Integers in the smallest type that holds them all."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    return numbers.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The same bytes for the same arrays: an .npz holds no time."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(path: Path, what: str, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            return {name: content[name] for name in content.files if wanted(name)}
    except Exception as error:  # numpy, zipfile and zlib name a damaged file in a dozen ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecordError(f"{path}: corrupt {what}: {reason}") from error
