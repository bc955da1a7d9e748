"""How a results folder is shown in MLflow: what is on disk, and the names, tags, curves and times of its runs."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.data.cards import read_card
from distillbench.paths import SHOWN, Cell
from distillbench.plan.figures import ENDINGS, FIGURES, STRUCTURE
from distillbench.record import Record, RecordError, digest, file_digest, read_record

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

LAYOUT = 1  # raise it when a run is shown differently: every run is then replaced once
RUN_TAG = "distillbench.run"
DATASET_DIGEST_LENGTH = 8  # characters, MLflow's limit
DESCRIPTION_LENGTH = 5000  # characters, MLflow's limit of a tag


@dataclass(frozen=True)
class Source:
    """One run as it is on disk. ``files`` become its artifacts; ``record`` is None for a data set's summary."""

    run: str
    dataset: str
    digest: str
    files: tuple[Path, ...]
    record: Record | None = None
    curves: Path | None = None
    description: str = ""  # Markdown


def read_sources(results: Path, problems: list[str]) -> list[Source]:
    """All runs below ``results`` and a summary for each data set; files that cannot be trusted go to ``problems``."""
    found: dict[str, Source] = {}
    for path in sorted([*results.glob("teachers/*/*/*/seed-*.json"), *results.glob("runs/*/*/*/*/seed-*.json")]):
        try:
            record = read_record(path)
            if record.run_id in found:
                raise RecordError(f"{path}: is the same run ({record.run_id}) as {found[record.run_id].files[0]}")
            found[record.run_id] = _record_source(results, path, record)
        except FileNotFoundError:
            continue  # a job that starts again has just removed it
        except (RecordError, OSError) as error:
            problems.append(str(error))
    names = sorted({source.dataset for source in found.values()})
    shown = _shown(results, problems)
    return [*found.values(), *(s for s in (_summary_source(results, name, shown) for name in names) if s)]


def _record_source(results: Path, path: Path, record: Record) -> Source:
    history = path.with_name(f"{path.stem}.history.csv")
    shown = [LAYOUT, record.model_dump(mode="json")]
    shown += [file_digest(file) if file.exists() else None for file in (history, _card(results, record.dataset))]
    curves = history if history.exists() else None
    return Source(record.run_id, record.dataset, digest(*shown), (path, *([curves] if curves else [])), record, curves)


def _shown(results: Path, problems: list[str]) -> frozenset[str] | None:
    """The files that belong to the run reported last, by their names below ``results``; None where nothing says so."""
    path = results / SHOWN
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        problems.append(
            f"{path}: not a list of files ({error}): MLflow shows every table. Delete it and run snakemake again."
        )
        return None


def _summary_source(results: Path, dataset: str, shown: frozenset[str] | None) -> Source | None:
    """All tables, the data set's figures and those over all data sets, the report page, and the conclusions.

    shown: only these of them: others are left over from an earlier config.
    """
    if shown is not None and f"figures/{FIGURES[0].name({'dataset': dataset})}.png" not in shown:
        return None  # a data set of an earlier config: what MLflow has of it stays
    tables = [p for p in sorted(results.glob("tables/*")) if p.suffix in {".csv", ".html", ".md", ".tex"}]
    folders = sorted(path for path in results.glob(f"teachers/{dataset}/*/*") if path.is_dir())
    cells = [Cell(dataset, path.parent.name, path.name) for path in folders] or [Cell(dataset, "", "")]
    figures = [
        results / "figures" / f"{figure.name(place)}.{ending}"
        for figure in (*FIGURES, STRUCTURE)
        for place in figure.places(cells)
        for ending in ENDINGS
    ]
    page = results / "report" / "index.html"
    there = {path.relative_to(results).as_posix(): path for path in (*tables, *figures, page) if path.exists()}
    files = {name: path for name, path in there.items() if shown is None or name in shown}
    if not files:
        return None
    text = _description(results, dataset)
    content = digest(LAYOUT, text, {name: file_digest(path) for name, path in files.items()})
    return Source(f"{dataset}/summary", dataset, content, tuple(files.values()), description=text)


def _description(results: Path, dataset: str) -> str:
    """What is shown on a data set, as Markdown; nothing where there is no comparison of it that can be read."""
    # here, because pandas takes half a second that the page's command line does not need
    from distillbench.report.tables import read_table
    from distillbench.statistics.compare import COMPARISON_COLUMNS
    from distillbench.statistics.conclusions import conclusions
    from distillbench.wording import markdown_text

    tables = {name: read_table(results / "tables" / f"{name}.csv") for name in ("comparison", "equivalence")}
    columns = {"comparison": set(COMPARISON_COLUMNS), "equivalence": {"dataset", "verdict", "delta"}}
    here = {
        name: table[table["dataset"] == dataset]
        for name, table in tables.items()
        if table is not None and columns[name] <= set(table.columns)  # a table of an older version is not spoken of
    }
    if "comparison" not in here or here["comparison"].empty:
        return ""
    alike = here.get("equivalence")
    first, *others = (markdown_text(text) for text in conclusions(here["comparison"], alike))
    ending = "\n\nTables, figures and the whole report are below, under Artifacts."
    text = f"**{first}**\n"
    for place, sentence in enumerate(others):
        rest = f"\n- … and {len(others) - place} more in the report."
        if len(text) + len(sentence) + len(rest) + len(ending) > DESCRIPTION_LENGTH:
            return text + rest + ending
        text += f"\n- {sentence}"
    return text + ending


def _card(results: Path, dataset: str) -> Path:
    return results / "data" / dataset / "data.json"


def _curves(path: Path) -> Iterator[tuple[str, float, float, int]]:
    """(column, value, seconds since the start, epoch) for each number of a history. Raises ValueError."""
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
    if missing := {"epoch", "seconds"} - set(rows.fieldnames or ()):
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"line {rows.line_num} has not as many values as there are columns")
        epoch, seconds = int(row.pop("epoch")), float(row.pop("seconds"))
        yield from ((column, float(value), seconds, epoch) for column, value in row.items() if value)


def run_name(source: Source) -> str:
    """A name people can read: ``lsp · pyg · gat · seed 3``."""
    record = source.record
    return f"{record.method} · {record.backend} · {record.pair} · seed {record.seed}" if record else "summary"


def run_tags(source: Source) -> dict[str, str]:
    """Everything one may want to filter or group by."""
    record = source.record
    if record is None:
        note = {"mlflow.note.content": source.description} if source.description else {}
        return {RUN_TAG: source.run, "dataset": source.dataset, "role": "summary", **note}
    shown = ("dataset", "backend", "pair", "method", "role", "seed", "status", "reason", "task", "metric", "key")
    nested = {"environment": record.environment, "digest": record.digests, "split": record.split_sizes}
    nested["tuning"] = record.tuning
    tags = {key: str(getattr(record, key)) for key in shown} | flat({k: v for k, v in nested.items() if v})
    tags |= {"tuned": "yes"} if record.tuning else {}
    return {RUN_TAG: source.run} | {key: value for key, value in tags.items() if value}


def final_metrics(record: Record, end: int) -> Iterator["Metric"]:
    """The numbers of the selected epoch and of the whole run; ``end`` in milliseconds since 1970."""
    from mlflow.entities import Metric

    for key in ("val", "test", "epochs", "best_epoch", "params", "train_seconds"):
        if (value := getattr(record, key)) is not None:
            yield Metric(key, float(value), end, 0)
    for name, score in (record.test_metrics | record.calibration).items():
        yield Metric(f"test_{name}", score, end, 0)


def curve_metrics(source: Source, start: int, problems: list[str]) -> list["Metric"]:
    """One point per epoch of every column of the history, at its true time; damage goes to ``problems``."""
    from mlflow.entities import Metric

    if source.curves is None:
        if source.record and source.record.status == "ok":
            problems.append(f"{source.files[0]}: its history is missing: MLflow shows the run without curves")
        return []
    try:
        # a name of their own: the last val of the curve is not the val of the selected epoch
        return [
            Metric(f"curves/{legal_key(column)}", value, start + round(seconds * 1000), epoch)
            for column, value, seconds, epoch in _curves(source.curves)
        ]
    except (ValueError, csv.Error) as error:
        problems.append(f"{source.curves}: damaged history ({error}): MLflow shows the run without curves")
        return []


def dataset_inputs(results: Path, datasets: set[str], problems: list[str]) -> dict[str, "DatasetInput"]:
    """The data sets, with source, digest and counts, by name; an unreadable card goes to ``problems``."""
    from mlflow.entities import Dataset, DatasetInput

    inputs = {}
    for path in (_card(results, name) for name in sorted(datasets)):
        if not path.exists():
            continue
        try:
            card = read_card(path)
        except RecordError as error:
            problems.append(f"{error} Until then MLflow shows its runs without it.")
            continue
        profile = json.dumps({key: value for key, value in card if isinstance(value, int)})
        origin = json.dumps({"tags": {"mlflow.source.name": card.source}})
        short = card.digest[:DATASET_DIGEST_LENGTH]
        inputs[path.parent.name] = DatasetInput(Dataset(card.name, short, "code", origin, profile=profile))
    return inputs


def start_and_end(source: Source) -> tuple[int, int]:
    """Start and end in milliseconds since 1970; of files where a record has none (nothing ran)."""
    written = [round(file.stat().st_mtime * 1000) for file in source.files]
    record = source.record
    start = _milliseconds(record.started) if record and record.started else min(written)
    return start, _milliseconds(record.ended) if record and record.ended else max(start, max(written))


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots; lists as JSON: ``{"training": {"lr": 0.01}}`` is ``training.lr = 0.01``."""
    joined: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            joined |= flat(value, f"{prefix}{key}.")
        else:
            joined[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return joined


def legal_key(name: str) -> str:
    """A name with the characters that MLflow refuses replaced by ``_``."""
    return re.sub(r"[^\w.\- :]", "_", name)
