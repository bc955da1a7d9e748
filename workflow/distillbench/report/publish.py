"""Publish a finished run: copy its tables and figures with their provenance, and put them into a document.

Writes ``results/reference/{name}/`` and what stands between the ``<!-- results -->`` marks of the document; prints
where the time of the run went. No number in a document is typed. ``again`` draws tables, figures and document of a
published run anew from its runs: after a change of the statistics a test asks for it.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from distillbench.config.config import Compare
from distillbench.jobs import tables as reports
from distillbench.jobs.tables import origins_in_words
from distillbench.paths import home
from distillbench.plan.figures import FIGURES, STRUCTURE, TABLES, Figure, pictures_of
from distillbench.plan.plan import make_plan
from distillbench.record import Record, file_digest, read_record, write_atomically
from distillbench.report.data import cells_of
from distillbench.report.tables import profiles_tables, read_table
from distillbench.runs import runs_of_csv, write_runs
from distillbench.statistics.across import across_cells
from distillbench.statistics.conclusions import conclusions
from distillbench.tables.tuning import footnotes
from distillbench.wording import markdown_text, table_row

REFERENCE = Path("results/reference")
MARK = "<!-- results -->"
DEFAULT = Path("config/config.yaml")
PUBLISHED = ("comparison.csv", "comparison.md", "equivalence.csv", "runs.csv")
WHERE_THERE_ARE = (
    "across.csv", "times.csv", "pareto.csv", "profiles.csv", "tuning.csv", "reproduction.csv", "reproduction.md",
    "rows.npz",
)  # fmt: skip


def provenance(results: Path, config: Path, elapsed: str) -> dict[str, Any]:
    """What a published run was made by: commit, config, machine, versions, and where its time went (seconds)."""
    records = [
        read_record(path) for path in [*results.glob("teachers/**/seed-*.json"), *results.glob("runs/**/seed-*.json")]
    ]
    tuned = sorted(map(str, results.glob("tuning/*/*/*.json")))
    names = ("python", "torch", "torch-geometric", "dgl")
    software: dict[str, Any] = {}
    for record in records:
        software |= {name: record.environment[name] for name in names if name in record.environment}
    return {
        "commit": _commit(),
        "config": {"file": str(config), "sha256": file_digest(config)},
        "finished": max(record.ended for record in records),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "devices": sorted({f"{record.backend}: {record.environment['device']}" for record in records}),
        "software": software,
        "origins": origins_in_words(sorted(results.glob("data/*/data.json"))),
        "tuning": footnotes(tuned) if any(record.tuning for record in records) else [],
        "runs": len(records),
        "wall_seconds": {"all": _seconds(elapsed), "training_phase": _training_phase(records)},
        "core_seconds": _core_seconds(records),
    }


def _commit() -> str:
    # git of the path, with arguments of our own
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)  # nosec B603 B607
    return done.stdout.strip()


def _training_phase(records: Sequence[Record]) -> float:
    """From the beginning of the first run to the end of the last, seconds."""
    begin = min(datetime.fromisoformat(record.started) for record in records)
    return round((max(datetime.fromisoformat(record.ended) for record in records) - begin).total_seconds(), 1)


def _core_seconds(records: Sequence[Record]) -> dict[str, float]:
    """Time of all runs together: in the training loop, and around it (evaluation, teacher outputs, writing)."""
    whole = sum((datetime.fromisoformat(r.ended) - datetime.fromisoformat(r.started)).total_seconds() for r in records)
    training = sum(record.train_seconds or 0.0 for record in records)
    return {"training": round(training, 1), "rest_of_runs": round(whole - training, 1)}


def _seconds(elapsed: str) -> float:
    hours, minutes, seconds = elapsed.split(":")
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 1)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found.group(1) if found else platform.processor()


def elapsed_time() -> str:
    """Wall time as the newest Snakemake log has it."""
    log = max(Path(".snakemake/log").glob("*.log"), key=lambda path: path.stat().st_mtime, default=None)
    if log is None:
        raise FileNotFoundError("no log of Snakemake says how long the run took: give --elapsed h:mm:ss")
    found = re.search(r"Elapsed time: ([\d:.]+)", log.read_text())
    if not found:
        raise SystemExit(f"{log}: the last run of Snakemake did not finish")
    return found.group(1)


def publish(results: Path, config: Path, name: str, elapsed: str, document: Path) -> dict[str, Any]:
    """Copy tables and figures to ``results/reference/{name}/``, renew the document's part. Returns the provenance."""
    facts = provenance(results, config, elapsed)
    folder = REFERENCE / name
    _copy(results, folder)
    write_atomically(folder / "provenance.json", json.dumps(facts, indent=1) + "\n")
    _write_document(folder, config, document)
    return facts


def again(config: Path, name: str, document: Path) -> None:
    """Draw tables and figures of a published run anew from its table of runs, by the statistics of today.

    The runs stay as they are, and so do the profiles and the comparison with published results; ``tables_of`` in the
    provenance is the commit that drew the rest. Runs that were published without ``rows.npz`` have none.
    """
    folder = REFERENCE / name
    runs, facts = runs_of_csv(folder / "runs.csv"), json.loads((folder / "provenance.json").read_text())
    plan = make_plan(yaml.safe_load(config.read_text()), [config], home())
    compared = plan.config.compare
    with tempfile.TemporaryDirectory() as scratch:
        tables, figures = Path(scratch) / "tables", Path(scratch) / "figures"
        parquet, profiles = str(tables / "runs.parquet"), folder / "profiles.csv"
        write_runs(runs, tables / "runs.csv", tables / "runs.parquet")
        outputs = {kind: str(tables / f"comparison.{kind}") for kind in ("csv", "parquet", "html", "tex")}
        outputs |= {"markdown": str(tables / "comparison.md")}
        outputs |= {kind: str(tables / f"{kind}.csv") for kind in ("equivalence", "times", "across")}
        remarks = [*facts.get("origins", []), *plan.remarks(), *facts.get("tuning", [])]
        rows = str(folder / "rows.npz") if (folder / "rows.npz").exists() else None
        reports.compare(parquet, outputs, [], [], remarks, **compared.model_dump(), rows=rows)
        known = [str(profiles)] if profiles.exists() else []
        reports.pareto(parquet, known, str(tables / "pareto.csv"))
        cells = cells_of(runs)
        inputs = {name: str(Path(scratch) / file) for name, file in TABLES.items()} | {"profiles": known}
        for figure, place in pictures_of(cells):
            if figure.section == "figures":
                own = {name: inputs[name] for name in figure.inputs}
                figure.draw(own, place, figure.settings(plan), figures)
        shutil.copyfile(folder / "runs.csv", tables / "runs.csv")  # as it was published, to the byte
        _copy(Path(scratch), folder)
    write_atomically(folder / "provenance.json", json.dumps(facts | {"tables_of": _commit()}, indent=1) + "\n")
    _write_document(folder, config, document)


def _copy(results: Path, folder: Path) -> None:
    """Tables, and the figures of their runs as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in (*PUBLISHED, *(each for each in WHERE_THERE_ARE if (results / "tables" / each).exists())):
        shutil.copyfile(results / "tables" / table, folder / table)
    for figure, place in _published(folder):
        drawn = results / "figures" / f"{figure.name(place)}.png"
        if drawn.exists():
            shutil.copyfile(drawn, folder / _flat(figure, place))


def _published(folder: Path) -> list[tuple[Figure, dict[str, str]]]:
    """The figures of the published runs, curves left out: a picture for each cell is too much for a document."""
    cells = cells_of(runs_of_csv(folder / "runs.csv"))
    kinds = [figure for figure in (*FIGURES, STRUCTURE) if figure.section == "figures"]
    return [(figure, place) for figure in kinds for place in figure.places(cells)]


def _flat(figure: Figure, place: Mapping[str, str]) -> str:
    return f"{figure.name(place).replace('/', '-')}.png"


def _write_document(folder: Path, config: Path, document: Path) -> None:
    """Renew what stands between the marks of the document, from what is published."""
    before, _, after = document.read_text().split(MARK)
    write_atomically(document, f"{before}{MARK}\n{in_words(folder, config, document.parent)}\n{MARK}{after}")


def in_words(folder: Path, config: Path, beside: Path) -> str:
    """What a document in the folder ``beside`` says of a published run: conclusions, figures, tables, costs."""
    facts = json.loads((folder / "provenance.json").read_text())
    minutes, machine = facts["wall_seconds"]["all"] / 60, facts["machine"]
    command = "make bench" if config == DEFAULT else f"snakemake --configfile {config}"
    text = [f"`{command}` as run on {machine['cores']} cores of {machine['cpu']} in {minutes:.0f} minutes "]
    text += [f"({facts['runs']} runs, {', '.join(facts['devices'])}; `{folder}/provenance.json`):\n"]
    text += [*(f"- {markdown_text(sentence)}" for sentence in _conclusions(folder, config)), ""]
    shown = Path(os.path.relpath(folder, beside))
    more: list[str] = []
    for figure, place in _published(folder):
        file = folder / _flat(figure, place)
        if file.exists():
            into = text if figure == FIGURES[0] else more
            into.append(f"![{file.stem}: {figure.shows}]({shown / file.name})\n")
    if more:
        text += ["<details><summary>More figures</summary>\n", *more, "</details>\n"]
    text.append((folder / "comparison.md").read_text())
    if (folder / "profiles.csv").exists():
        text += ["\nWhat the models cost, with all cores:\n", _costs(folder / "profiles.csv")]
    return "\n".join(text)


def _conclusions(folder: Path, config: Path) -> list[str]:
    """The verdicts in sentences, as on the report page."""
    compare = Compare(**yaml.safe_load(config.read_text()).get("compare", {}))
    across = across_cells(runs_of_csv(folder / "runs.csv"), baseline=compare.baseline, alpha=compare.alpha)
    comparison, equivalence = read_table(folder / "comparison.csv"), read_table(folder / "equivalence.csv")
    assert comparison is not None
    return conclusions(comparison, equivalence, across.sentence, alpha=compare.alpha)


def _costs(table: Path) -> str:
    """What the models cost and how large they are, as on the report page."""
    profiles = read_table(table)
    assert profiles is not None
    parts: list[str] = []
    for shown in profiles_tables(profiles):
        align = [":---" if name in shown.words else "---:" for name in shown.columns]
        lines = [[markdown_text(text) for text in line.texts] for line in shown.lines]
        parts += [table_row(shown.columns), f"|{'|'.join(align)}|", *map(table_row, lines), ""]
        parts += [*(f"- {markdown_text(note)}" for note in shown.notes), ""] if shown.notes else []
    return "\n".join(parts).rstrip("\n")
