"""Publish a finished run: copy its tables and figures with their provenance, and put them into a document.

    python -m distillbench.publish --results results --config config/config.yaml --name default
    python -m distillbench.publish --results results/paper-small --config config/paper-small.yaml --name paper-small \
        --document docs/paper.md

Writes ``results/reference/{name}/`` and what stands between the ``<!-- results -->`` marks of the document; prints
where the time of the run went. No number in a document is typed.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from distillbench.across import across_cells
from distillbench.conclusions import conclusions
from distillbench.config import Compare
from distillbench.record import Record, file_digest, read_record, write_atomically
from distillbench.tables import markdown_text, read_runs

ABOUT = {  # figures that are not of one data set's methods
    "pareto-": "the test metric against what it costs",
    "libraries": "differences of the two libraries and ratios of their training times",
    "across": "ranks over data sets and pairs",
}
MARK = "<!-- results -->"
DEFAULT = Path("config/config.yaml")
TABLES = ("comparison.csv", "comparison.md", "equivalence.csv", "runs.csv")
WHERE_THERE_ARE = ("across.csv", "times.csv", "pareto.csv", "profiles.csv", "tuning.csv", "reproduction.csv", "reproduction.md")


def provenance(results: Path, config: Path, elapsed: str) -> dict[str, Any]:
    """What a published run was made by: commit, config, machine, versions, and where its time went (seconds)."""
    records = [
        read_record(path) for path in [*results.glob("teachers/**/seed-*.json"), *results.glob("runs/**/seed-*.json")]
    ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    names = ("python", "torch", "torch-geometric", "dgl")
    software: dict[str, Any] = {}
    for record in records:
        software |= {name: record.environment[name] for name in names if name in record.environment}
    return {
        "commit": commit,
        "config": {"file": str(config), "sha256": file_digest(config)},
        "finished": max(record.ended for record in records),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "devices": sorted({f"{record.backend}: {record.environment['device']}" for record in records}),
        "software": software,
        "runs": len(records),
        "wall_seconds": {"all": _seconds(elapsed), "training_phase": _training_phase(records)},
        "core_seconds": _core_seconds(records),
    }


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


def _elapsed() -> str:
    """Wall time as the newest Snakemake log has it."""
    log = max(Path(".snakemake/log").glob("*.log"), key=lambda path: path.stat().st_mtime)
    found = re.search(r"Elapsed time: ([\d:.]+)", log.read_text())
    if not found:
        raise SystemExit(f"{log}: the last run of Snakemake did not finish")
    return found.group(1)


def publish(results: Path, config: Path, name: str, elapsed: str, document: Path) -> dict[str, Any]:
    """Copy tables and figures to ``results/reference/{name}/``, renew the document's part. Returns the provenance."""
    facts = provenance(results, config, elapsed)
    folder = Path("results/reference") / name
    folder.mkdir(parents=True, exist_ok=True)
    for table in (*TABLES, *(each for each in WHERE_THERE_ARE if (results / "tables" / each).exists())):
        shutil.copyfile(results / "tables" / table, folder / table)
    figures = sorted(results.glob("figures/*.png"))
    pictures = {figure: figure.name for figure in figures}
    pictures |= {figure: f"structure-{figure.name}" for figure in sorted(results.glob("figures/structure/*.png"))}
    for figure, copied in pictures.items():
        shutil.copyfile(figure, folder / copied)
    write_atomically(folder / "provenance.json", json.dumps(facts, indent=1) + "\n")
    minutes, machine = facts["wall_seconds"]["all"] / 60, facts["machine"]
    command = "make bench" if config == DEFAULT else f"snakemake --configfile {config}"
    text = [f"`{command}` as run on {machine['cores']} cores of {machine['cpu']} in {minutes:.0f} minutes "]
    text += [f"({facts['runs']} runs, {', '.join(facts['devices'])}; `{folder}/provenance.json`):\n"]
    text += [*(f"- {markdown_text(sentence)}" for sentence in _conclusions(results, config)), ""]
    shown = Path(os.path.relpath(folder, document.parent))
    more: list[str] = []
    for figure, copied in pictures.items():
        first = figure.parent == results / "figures" and not figure.stem.startswith(tuple(ABOUT))
        what = next((words for name, words in ABOUT.items() if figure.stem.startswith(name)), "")
        what = what or ("every seed, mean and interval per method" if first else "structure of the feature space")
        (text if first else more).append(f"![{figure.stem}: {what}]({shown / copied})\n")
    if more:
        text += ["<details><summary>More figures</summary>\n", *more, "</details>\n"]
    text.append((results / "tables/comparison.md").read_text())
    if (results / "tables/profiles.csv").exists():
        text += ["\nWhat the models cost, with all cores:\n", _costs(results)]
    before, _, after = document.read_text().split(MARK)
    write_atomically(document, f"{before}{MARK}\n{chr(10).join(text)}\n{MARK}{after}")
    return facts


def _conclusions(results: Path, config: Path) -> list[str]:
    """The verdicts in sentences, as on the report page."""
    compare = Compare(**yaml.safe_load(config.read_text()).get("compare", {}))
    tables = results / "tables"
    across = across_cells(read_runs(tables / "runs.parquet"), baseline=compare.baseline, alpha=compare.alpha)
    comparison, equivalence = pd.read_parquet(tables / "comparison.parquet"), pd.read_csv(tables / "equivalence.csv")
    return conclusions(comparison, equivalence, across.sentence, delta=compare.delta)


def _costs(results: Path) -> str:
    profiles = pd.read_csv(results / "tables/profiles.csv")
    rows = [
        "| data set | library | pair | role | model | parameters | reads the graph | latency, ms (quartiles) "
        "| per second | peak memory, MB |"
    ]
    rows += ["|:---|:---|:---|:---|:---|---:|:---|---:|---:|---:|"]
    for p in profiles.dropna(subset=["latency_ms"]).to_dict("records"):
        latency = f"{p['latency_ms']:.2f} ({p['latency_q25_ms']:.2f}–{p['latency_q75_ms']:.2f})"
        cells = [p["dataset"], p["backend"], p["pair"], p["role"], p["model"], f"{p['parameters']:,}"]
        cells += ["yes" if p["reads_graph"] else "no", latency]
        cells += [f"{p['throughput_per_second']:,.0f} {p['throughput_of']}", f"{p['peak_memory_mb']:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m distillbench.publish", description="Publish a finished run.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--config", type=Path, default=DEFAULT)
    parser.add_argument("--name", default="default", help="folder below results/reference")
    parser.add_argument("--document", type=Path, default=Path("README.md"), help="with the <!-- results --> marks")
    parser.add_argument("--elapsed", help="wall time h:mm:ss (default: of the newest Snakemake log)")
    options = parser.parse_args()
    facts = publish(options.results, options.config, options.name, options.elapsed or _elapsed(), options.document)
    print(json.dumps({name: facts[name] for name in ("wall_seconds", "core_seconds", "runs")}, indent=1))


if __name__ == "__main__":
    main()
