"""The table of runs, and how every table is kept in a file. No torch.

CSV files hold full-precision fractions. Every file is written atomically.
"""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from distillbench.record import Record, RecordError, digest, write_atomically

RUN_COLUMNS = {
    "dataset": "str", "backend": "str", "pair": "str", "method": "str", "role": "str", "seed": "int64",
    "status": "str", "reason": "str", "task": "str", "metric": "str", "val": "float64", "test": "float64",
    "epochs": "Int64", "best_epoch": "Int64", "params": "Int64", "train_seconds": "float64", "device": "str",
    "resplit": "bool", "n_train": "Int64", "n_val": "Int64", "n_test": "Int64",
    "mean_class_accuracy": "float64", "test_seen": "float64", "test_unseen": "float64",
    "agreement": "float64", "ece": "float64", "nll": "float64",
    "started": "str", "ended": "str", "versions": "str", "weights": "str", "key": "str",
}  # fmt: skip
SPLITS = {"n_train": "train", "n_val": "val", "n_test": "test"}  # column of runs: key of Record.split_sizes
VERSIONED = ("python", "torch", "torch-geometric", "dgl", "cuda")  # of a record's environment


def runs_table(
    records: Iterable[Record], methods: Sequence[str] | None = None, agreements: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """One row per record with RUN_COLUMNS, sorted by data set, backend, pair, role (teacher first), method and seed.

    ``val`` and ``test`` are fractions in [0, 1], NaN unless the run finished; ``train_seconds`` are seconds. Methods
    are sorted as in ``methods``, those it does not name after them; without it, by name. ``agreement`` is the share of
    test rows on which a student predicts what its teacher does, by ``Record.run_id`` in ``agreements``; ``ece`` and
    ``nll`` are calibration error and negative log-likelihood on the test part (see calibration).
    """
    rows = []
    for record in records:
        row = {name: getattr(record, name) for name in RUN_COLUMNS if name in Record.model_fields}
        row |= {column: record.split_sizes.get(split) for column, split in SPLITS.items()}
        if record.status != "ok":
            row |= {"val": None, "test": None}
        else:
            row |= {name: record.calibration.get(name) for name in ("ece", "nll")}
            row["agreement"] = (agreements or {}).get(record.run_id)
            row["mean_class_accuracy"] = record.test_metrics.get("mean_class_accuracy")
            for part in ("seen", "unseen"):  # of the production setting
                row[f"test_{part}"] = record.test_metrics.get(f"{record.metric}_{part}")
        weights = record.digests.get("weights", "")[:16]  # of a teacher: who taught which seeds
        versions = "; ".join(f"{name} {record.environment[name]}" for name in VERSIONED if name in record.environment)
        device = str(record.environment.get("device", ""))
        rows.append(row | {"device": device, "versions": versions, "weights": weights})
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS)).astype(RUN_COLUMNS)
    rank = {name: place for place, name in enumerate(methods or [])}
    places = frame["method"].map(lambda name: rank.get(name, len(rank)))
    order = frame.assign(_teacher=frame["role"] != "teacher", _place=places)
    by = ["dataset", "backend", "pair", "_teacher", "_place", "method", "seed"]
    return order.sort_values(by, kind="stable")[list(RUN_COLUMNS)].reset_index(drop=True)


def write_runs(runs: pd.DataFrame, csv: Path, parquet: Path) -> None:
    """Write the table of runs as CSV (for people) and Parquet (for ``read_runs``)."""
    write_csv(runs, csv)
    write_parquet(runs, parquet)


def read_runs(parquet: Path) -> pd.DataFrame:
    """Read what ``write_runs`` wrote. Raises RecordError naming the file where it is not a complete table of runs."""
    runs = read_parquet(parquet)
    if missing := [name for name in RUN_COLUMNS if name not in runs.columns]:
        raise _corrupt(parquet, f"no column {', '.join(missing)}")
    try:
        return runs.astype(RUN_COLUMNS)
    except (TypeError, ValueError) as error:
        raise _corrupt(parquet, str(error)) from error


def runs_of_csv(path: Path) -> pd.DataFrame:
    """Read the CSV that ``write_runs`` wrote, of this version or an older one, whose missing columns are empty."""
    texts = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns: dict[str, Any] = {}
    for name, kind in RUN_COLUMNS.items():
        column = texts[name] if name in texts.columns else pd.Series("", index=texts.index)
        if kind == "bool":
            columns[name] = column == "True"
        else:
            columns[name] = column if kind == "str" else pd.to_numeric(column.replace("", None))
    return pd.DataFrame(columns).astype(RUN_COLUMNS)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with the digest of its content: Parquet does not notice every flipped bit."""
    plain, buffer, stamped = BytesIO(), BytesIO(), frame.copy(deep=False)
    frame.to_parquet(plain, index=False)
    stamped.attrs = {"digest": _content(pd.read_parquet(plain))}  # as it is read: a column may be of another type then
    stamped.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())


def read_parquet(path: Path) -> pd.DataFrame:
    """Read what ``write_parquet`` wrote. Raises RecordError naming the file where it is damaged."""
    content = path.read_bytes()
    try:
        frame = pd.read_parquet(BytesIO(content))
        found = _content(frame)
    except Exception as error:  # pyarrow and pandas name a damaged file in a dozen ways
        raise _corrupt(path, (str(error).splitlines() or [type(error).__name__])[0]) from error
    written = frame.attrs.pop("digest", None)
    if written is None:
        raise _corrupt(path, "it has no digest: an earlier version of distillbench wrote it, or something else did")
    if written != found:
        raise _corrupt(path, "its content does not match its digest")
    return frame


def _content(frame: pd.DataFrame) -> str:
    return digest(frame.to_csv(index=False))


def _corrupt(path: Path, reason: str) -> RecordError:
    return RecordError(
        f"{path}: corrupt table: {reason}. Delete it and run snakemake again: it is built from the records, which stay."
    )


def write_profiles(rows: list[dict[str, Any]], csv: Path) -> None:
    """Write one row per profile; the columns are the keys, in order of appearance."""
    write_csv(pd.DataFrame(rows), csv)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame with full precision, and no text that a spreadsheet would run as a formula."""
    texts = frame.select_dtypes(["object", "string"])
    written = frame.assign(**{str(name): texts[name].map(_no_formula) for name in texts})
    write_atomically(path, written.to_csv(index=False, lineterminator="\n"))


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
