"""The page that a person opens first: one HTML file that says what was run, what it shows, and how to do it again.

It needs no network, and no script to be read. Everything in it is read from the results folder, but for the facts that
only the plan knows (``report_facts.facts_of``). Imports no torch.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from distillbench.paths import SHOWN
from distillbench.record import write_atomically
from distillbench.report.data import data_sets, environment, pictures, spec_in_words
from distillbench.report.tables import (
    Table,
    across_table,
    best_tables,
    comparison_tables,
    equivalence_tables,
    failures_table,
    profiles_tables,
    prose_table,
    read_table,
    reproduction_table,
    tuning_tables,
)
from distillbench.runs import read_runs
from distillbench.statistics.across import across_cells
from distillbench.statistics.conclusions import conclusions
from distillbench.tables.comparison import explanations
from distillbench.wording import backend_label, backend_order

TEMPLATES, TEMPLATE = Path(__file__).parent / "templates", "index.html.jinja"


def write_report(results: str | Path, facts: dict[str, Any], output: str | Path) -> str:
    """Write the page from what is below ``results`` and from ``facts`` (``report_facts.facts_of``); say what is in it.

    Needs ``tables/runs.parquet`` and ``tables/comparison.csv``; other tables, figures and curves are shown where they
    are there and belong to this run (``facts["shown"]``). Which do is written beside the page (``paths.SHOWN``), for
    who shows the results folder without a plan. Equal files give an equal page. Raises FileNotFoundError where one of
    the two is missing, RecordError where the runs are damaged.
    """
    results, output, settings, shown = Path(results), Path(output), facts["config"], frozenset(facts["shown"])
    tables = results / "tables"
    runs, comparison = read_runs(tables / "runs.parquet"), read_table(tables / "comparison.csv")
    if comparison is None:
        raise FileNotFoundError(f"{tables / 'comparison.csv'} does not exist: snakemake makes it before the report")
    across = across_cells(runs, baseline=settings["compare"]["baseline"], alpha=settings["compare"]["alpha"])
    equivalence = _shown_table(results, shown, "equivalence.csv")
    found = pictures(results, runs, shown)
    machine, without_record = environment(results, runs)
    page = _template().render(
        facts=facts,
        runs=_in_numbers(runs),
        conclusions=conclusions(comparison, equivalence, across.sentence, alpha=settings["compare"]["alpha"]),
        datasets=list(pd.unique(runs["dataset"])),
        described=[
            prose_table("Data sets", data_sets(results, runs)),
            prose_table("Teachers and students", _pairs(facts, runs)),
            prose_table("Methods", _methods(facts)),
        ],
        protocol=_protocol(settings),
        sections=_sections(results, shown, comparison, equivalence, across.table),
        papers=_papers(facts),
        failures=failures_table(runs),
        environment=machine,
        without_record=without_record,
        config=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100),
        explained=explanations(comparison, settings["compare"]["alpha"]),
        **found,
    )
    write_atomically(output, page)
    write_atomically(output.with_name(SHOWN.name), json.dumps([*facts["shown"], "report/index.html"], indent=1) + "\n")
    size = len(page.encode()) / 1e6
    return f"{output}: {len(found['figures'])} figures, {len(found['curves'])} of curves, {size:.1f} MB"


def _in_numbers(runs: pd.DataFrame) -> dict[str, Any]:
    """Numbers of runs, how they ended, seeds, libraries, when, and time of training."""
    seconds = float(runs["train_seconds"].sum())
    started, ended = runs.loc[runs["started"] != "", "started"], runs.loc[runs["ended"] != "", "ended"]
    return {
        "number": len(runs),
        "ok": int((runs["status"] == "ok").sum()),
        "seeds": runs["seed"].nunique(),
        "libraries": [backend_label(b) for b in sorted(pd.unique(runs["backend"]), key=backend_order)],
        "when": f"{_minute(started.min())} to {_minute(ended.max())} UTC" if len(started) and len(ended) else "",
        "training": _duration(seconds),
    }


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _protocol(settings: dict[str, Any]) -> dict[str, str]:
    """What every run and test has in common, in words by name."""
    values = {**settings["protocol"], **settings["compare"]}
    said = {name.replace("_", " "): _plain(value) for name, value in values.items()}
    if (tune := settings["tune"]) is None:
        return {**said, "tuning": "none: every method runs with its defaults or what the config gives"}
    seeds = (
        f"{tune['seeds']} seed{'s' * (tune['seeds'] != 1)}, which {'is' if tune['seeds'] == 1 else 'are'} not reported"
    )
    factor = f"within a factor of {tune['learning_rate']:g}" if tune["learning_rate"] > 1 else "not at all"
    text = (
        f"{tune['trials']} trials for every method of every pair, the student alone too, the first of the default "
        f"values; a trial's score is the mean over {seeds}; the learning rate is searched {factor}"
    )
    return {**said, "tuning": text}


def _plain(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _shown_table(results: Path, shown: Collection[str], name: str) -> pd.DataFrame | None:
    """A table, where it belongs to this run and is there."""
    return read_table(results / "tables" / name) if f"tables/{name}" in shown else None


def _sections(
    results: Path,
    shown: Collection[str],
    comparison: pd.DataFrame,
    equivalence: pd.DataFrame | None,
    across: pd.DataFrame,
) -> list[tuple[str, str, list[Table]]]:
    """The tables that are there: (id, heading, tables)."""
    names = ("profiles.csv", "tuning.csv", "reproduction.csv")
    profiles, tuning, reproduction = (_shown_table(results, shown, name) for name in names)
    sections = {
        ("comparison", "Every method against the baseline"): comparison_tables(comparison),
        ("best", "How far behind the best"): best_tables(comparison),
        ("across", "Across data sets and pairs"): [across_table(across)],
        ("libraries", "PyG against DGL"): equivalence_tables(equivalence) if equivalence is not None else [],
        ("profiles", "Cost"): profiles_tables(profiles) if profiles is not None else [],
        ("tuning", "Tuning"): tuning_tables(tuning, results) if tuning is not None else [],
        ("reproduction", "Published results"): [reproduction_table(reproduction)] if reproduction is not None else [],
    }
    return [
        (name, heading, found) for (name, heading), found in sections.items() if any(table.lines for table in found)
    ]


def _pairs(facts: dict[str, Any], runs: pd.DataFrame) -> list[dict[str, str]]:
    """Teacher and student of each pair in words, with their numbers of parameters where they were trained."""
    described = []
    for pair in facts["pairs"]:
        here = runs[(runs["dataset"] == pair["dataset"]) & (runs["pair"] == pair["pair"])]
        trained = {role: _parameters(here[here["role"] == role]) for role in ("teacher", "student")}
        further = "".join(f"; {name}: {spec_in_words(spec)}" for name, spec in pair["teachers"].items())
        described.append({
            "Data set, pair": f"{pair['dataset']}, {pair['pair']}",
            "Teacher": f"{spec_in_words(pair['teacher'])}{trained['teacher']}{further}",
            "Student": f"{spec_in_words(pair['student'])}{trained['student']}",
            "Methods": ", ".join(pd.unique(here.loc[here["role"] == "student", "method"])),
        })  # fmt: skip
    return described


def _methods(facts: dict[str, Any]) -> list[dict[str, str]]:
    """What each method is, and its hyper-parameters (where there is tuning: before it)."""
    heading = "Hyper-parameters, before tuning" if facts["config"].get("tune") else "Hyper-parameters"
    return [
        {"Name": method["name"], "What it is": "; ".join(part["title"] for part in method["parts"])}
        | {heading: ", ".join(f"{name}: {_value(value)}" for name, value in method["params"].items())}
        for method in facts["methods"]
    ]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _papers(facts: dict[str, Any]) -> list[dict[str, str]]:
    """The methods that have a paper, each once: parts of combinations, and one of several variants of a file."""
    parts = {part["citation"]: part for method in facts["methods"] for part in method["parts"] if part["citation"]}
    return list(parts.values())


def _parameters(rows: pd.DataFrame) -> str:
    """Number of parameters, of most runs: a method may change its student."""
    known = rows["params"].dropna()
    return f" ({int(known.mode().iloc[0]):,} parameters)" if len(known) else ""


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE)
