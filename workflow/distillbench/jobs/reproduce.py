"""What the rule ``reproduce`` does: our runs beside published results. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillbench.data.cards import read_card
from distillbench.plan.published import read_claims
from distillbench.runs import read_runs
from distillbench.statistics.reproduce import MARGIN, reproduction
from distillbench.tables.reproduction import write_reproduction


def reproduce(
    runs: str,
    cards: Sequence[str],
    pairs: Sequence[dict[str, Any]],
    outputs: dict[str, str],
    margin: float = MARGIN,
) -> str:
    """Set the runs beside what is published and write the table as ``outputs`` csv, html and markdown.

    ``runs``: runs.parquet. ``cards``: data.json of the data sets concerned. ``pairs``: for each pair of the config that
    has them dataset, pair, teacher, student, sources, methods, and perhaps ``protocol``, a remark to show. Raises
    ClaimsError where published.csv is damaged or has no such results; RecordError naming a damaged card or table.
    """
    described = {}
    for path in map(Path, cards):
        card = read_card(path)
        described[card.name] = card
    table = reproduction(read_runs(Path(runs)), read_claims(), pairs, described, margin=margin)
    csv, html, markdown = (Path(outputs[name]) for name in ("csv", "html", "markdown"))
    write_reproduction(table, csv=csv, html=html, markdown=markdown, margin=margin)
    counts = table["verdict"].value_counts(sort=False)
    return f"{len(table)} published results: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
