"""What the report page reads from a results folder besides tables: data sets, environments, pictures. No torch."""

import base64
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from distillbench.data.cards import read_card, split_in_words
from distillbench.paths import Cell
from distillbench.plan.figures import FIGURES, STRUCTURE
from distillbench.record import Record, RecordError, read_shard
from distillbench.wording import backend_label, backend_order, metric_label

HEAVY = 2.0  # an SVG this many times as large as its PNG is shown as PNG
COUNTS = ("nodes", "edges", "graphs", "features", "classes")


class Fact(NamedTuple):
    """One line of the environment. ``mixed``: runs with one library do not all have the same."""

    name: str
    value: str
    mixed: bool


class Picture(NamedTuple):
    """A figure. ``alt``: for who cannot see it; ``file``: below the results folder; ``uri``: the picture itself."""

    alt: str
    caption: str
    file: str
    uri: str


def data_sets(results: Path, runs: pd.DataFrame) -> list[dict[str, str]]:
    """What each data set is, in words, by heading."""
    described = []
    for name, rows in runs.groupby("dataset", sort=False):
        path = results / "data" / str(name) / "data.json"
        card = read_card(path) if path.exists() else None  # not prepared where all of its runs are skipped
        sizes = ", ".join(f"{(n := getattr(card, key)):,} {key if n != 1 else key[:-1]}" for key in COUNTS if card)
        ok = rows[rows["status"] == "ok"].head(1).to_dict("records")
        split = [f"{ok[0][f'n_{part}']:,.0f} {part}" for part in ("train", "val", "test")] if ok else []
        drawn = "another one for every seed" if rows["resplit"].any() else "the same for every seed"
        drawn = f"{split_in_words(card)}, {drawn}" if card else drawn
        described.append({
            "Data set": str(name),
            "Task": f"{rows['task'].iloc[0]}, test {metric_label(str(rows['metric'].iloc[0]))}",
            "Size": sizes,
            "Split": f"{', '.join(split)}; {drawn}" if split else drawn,
            "Source": card.source if card else "",
            "Licence": card.licence if card else "",
            "Remark": "; ".join(each for each in (card.provenance["remark"], *card.warnings) if each) if card else "",
        })  # fmt: skip
    return described


def environment(results: Path, runs: pd.DataFrame) -> tuple[list[Fact], int]:
    """Versions, machines, devices and threads of the runs in the table, and how many of its runs are without a record.

    A run's record counts where it is the one in the table: its key says so.
    """
    wanted = {(str(key), int(seed)) for key, seed, status in runs[["key", "seed", "status"]].itertuples(index=False)
              if status != "skipped"}  # fmt: skip
    seen: dict[str, dict[str, Counter[str]]] = {}
    found = 0
    for record in _records(results):
        if (record.key, record.seed) not in wanted:
            continue
        found += 1
        for name, value in record.environment.items():
            seen.setdefault(name, {}).setdefault(record.backend, Counter())[str(value)] += 1
    facts = []
    for name, by_library in sorted(seen.items(), key=lambda item: item[0]):
        mixed = any(len(values) > 1 for values in by_library.values())
        facts.append(Fact(name, _values(by_library), mixed))
    return facts, len(wanted) - found


def _records(results: Path) -> Iterable[Record]:
    files = [*results.glob("teachers/*/*/*/records-*.json"), *results.glob("runs/*/*/*/*/records-*.json")]
    for file in sorted(files):
        try:
            yield from read_shard(file)
        except (RecordError, OSError):
            continue  # counted: its runs are without a record


def _values(by_library: Mapping[str, Counter[str]]) -> str:
    """One value where all agree; else each with its library and the number of its runs."""
    together = sum(by_library.values(), Counter())
    if len(together) == 1:
        return next(iter(together))
    if all(len(values) == 1 for values in by_library.values()):
        return "; ".join(f"{next(iter(v))} ({backend_label(library)})" for library, v in by_library.items())
    return "; ".join(
        f"{value} ({backend_label(library)}, {number} run{'s' * (number != 1)})"
        for library, values in by_library.items()
        for value, number in values.most_common()
    )


def spec_in_words(spec: Mapping[str, Any]) -> str:
    """A model's specification on one line: ``gat, hidden 64, layers 2, residual``; without what is off, 0 or empty."""
    said = [
        name if value is True else f"{name} {_plain(value)}"
        for key, value in spec.items()
        for name in [key.replace("_", " ")]
        if key != "model" and value
    ]
    return ", ".join([str(spec["model"]), *said])


def _plain(value: Any) -> str:
    return "-".join(map(_plain, value)) if isinstance(value, list) else str(value)


def pictures(results: Path, runs: pd.DataFrame, shown: Collection[str]) -> dict[str, list[Picture]]:
    """The figures of these runs that are there and ``shown``, by section of the page.

    ``shown``: names below ``results`` of what belongs to this run.
    """
    found: dict[str, list[Picture]] = {"figures": [], "curves": []}
    cells = cells_of(runs)
    for figure, place in [(each, place) for each in (*FIGURES, STRUCTURE) for place in each.places(cells)]:
        where = " · ".join(backend_label(value) if key == "backend" else value for key, value in place.items())
        caption, alt = f"{where}: {figure.shows}" if where else figure.shows, ""
        if figure.section == "curves":  # whose heading says what they show
            caption, alt = where, f"{figure.shows}: {where}"
        if picture := _picture(results, shown, figure.name(place), caption, alt):
            found[figure.section].append(picture)
    return found


def cells_of(runs: pd.DataFrame) -> list[Cell]:
    """The cells of a table of runs: data sets as they come, libraries in their order in all tables."""
    cells = runs[["dataset", "pair", "backend"]].drop_duplicates()
    number = {name: place for place, name in enumerate(pd.unique(cells["dataset"]))}
    places = cells.assign(number=cells["dataset"].map(number), place=cells["backend"].map(backend_order))
    ordered = places.sort_values(["number", "pair", "place"], kind="stable")
    return [Cell(*map(str, row)) for row in ordered[["dataset", "backend", "pair"]].itertuples(index=False)]


def _picture(results: Path, shown: Collection[str], name: str, caption: str, alt: str) -> Picture | None:
    """A figure as SVG, or as PNG where that is far smaller or all there is; None where it is not ``shown``."""
    svg, png = (f"figures/{name}.{kind}" for kind in ("svg", "png"))
    files = {file: (results / file).read_bytes() for file in (svg, png) if file in shown and (results / file).is_file()}
    if not files:
        return None
    chosen = png if svg not in files or (png in files and len(files[svg]) > HEAVY * len(files[png])) else svg
    kind = "image/png" if chosen == png else "image/svg+xml"
    uri = f"data:{kind};base64,{base64.b64encode(files[chosen]).decode()}"
    return Picture(alt or caption, caption, chosen, uri)
