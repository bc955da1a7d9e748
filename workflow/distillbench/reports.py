"""What the rules at the end of the DAG do: records to tables, tables to figures, everything to MLflow. No torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillbench import figures, stats, tables
from distillbench.mlflow_store import TrackingError
from distillbench.record import Record, RecordError, read_shard, write_atomically
from distillbench.tracking import sync


def collect(
    shards: Sequence[str], skipped: Sequence[dict[str, Any]], methods: Sequence[str], csv: str, parquet: str
) -> str:
    """Gather the records of all jobs, and of what could not run here, into the table of runs.

    Raises RecordError naming every file that cannot be trusted: no record is ever left out silently.
    """
    records, problems = [Record(**fields) for fields in skipped], []
    for shard in shards:
        try:
            records += read_shard(Path(shard))
        except RecordError as error:
            problems.append(str(error))
    if problems:
        raise RecordError("\n".join(problems))
    runs = tables.runs_table(records, methods)
    tables.write_runs(runs, Path(csv), Path(parquet))
    counts = runs["status"].value_counts()
    return f"{len(runs)} runs: {', '.join(f'{count} {status}' for status, count in counts.items())}"


def compare(runs: str, outputs: dict[str, str], baseline: str, alpha: float, delta: float) -> str:
    """Test every method against the baseline, and the libraries for equivalence; write the tables."""
    frame = tables.read_runs(Path(runs))
    comparison = stats.compare(frame, baseline=baseline, alpha=alpha)
    csv, html, tex, markdown = (Path(outputs[name]) for name in ("csv", "html", "tex", "markdown"))
    tables.write_comparison(comparison, csv=csv, html=html, tex=tex, markdown=markdown, alpha=alpha)
    tables.write_equivalence(stats.equivalence(frame, delta=delta), Path(outputs["equivalence"]))
    students = comparison[comparison["verdict"] != "control"]
    return f"{len(students)} comparisons: " + ", ".join(
        f"{n} {verdict}" for verdict, n in students["verdict"].value_counts().items()
    )


def figure(runs: str, comparison: str, dataset: str, png: str, svg: str, baseline: str) -> str:
    """Draw one data set's figure."""
    frame = tables.read_runs(Path(runs))
    figures.draw_dataset(
        frame, tables.read_comparison(Path(comparison)), dataset, png=Path(png), svg=Path(svg), baseline=baseline
    )
    return f"{dataset}: {png}"


def collect_profiles(profiles: Sequence[str], csv: str) -> str:
    """Gather all profiles into one table. Raises RecordError naming a file that cannot be read."""
    rows = []
    for path in map(Path, profiles):
        try:
            profile = json.loads(path.read_text())
            model, machine = profile.pop("model"), profile.pop("environment")
        except (ValueError, KeyError) as error:
            raise RecordError(f"{path}: corrupt profile ({error}). Delete it and run snakemake again.") from error
        measured = {name: machine.get(name) for name in ("device", "threads", "machine")}
        rows.append({**profile, "model": model["model"], **measured})
    tables.write_profiles(rows, Path(csv))
    return f"{len(rows)} profiles"


def track(results: str, synced: str) -> str:
    """Bring MLflow up to date with the records. Raises TrackingError naming what could not be shown."""
    report = sync(Path(results))
    if report.problems:
        raise TrackingError("\n".join(report.problems))
    counts = {"added": report.added, "replaced": report.replaced, "unchanged": report.skipped}
    write_atomically(Path(synced), json.dumps(counts) + "\n")
    return "MLflow: " + ", ".join(f"{number} {what}" for what, number in counts.items())
