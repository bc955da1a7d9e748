"""The figures that a run ends in: of what, from which files, and what they show. Imports neither matplotlib nor torch.

A figure is an entry here, a module of distillbench.figures whose ``draw`` makes it, and a test. The rules of the DAG,
the report, what publishes a run and MLflow all go by ``FIGURES``.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distillbench.params import MIN_CELLS
from distillbench.paths import Cell

if TYPE_CHECKING:
    from distillbench.plan.grid import Grid

TABLES = {  # below the results folder, by the name of the argument that ``draw`` has for it
    "runs": "tables/runs.parquet",
    "comparison": "tables/comparison.parquet",
    "equivalence": "tables/equivalence.csv",
}
ENDINGS = ("png", "svg")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One kind of figure; one picture for each data set, or cell, or run, as its ``file`` says.

    Attributes:
        module: of distillbench.figures. Its ``draw(**inputs, **place, **options, png, svg)`` writes a picture and
            returns a line for the log; ``place`` is what ``file`` names of ``dataset``, ``backend`` and ``pair``.
        file: below ``figures/``, without its ending, such as ``pareto-{dataset}``.
        heading, label: what it is called in the report of Snakemake.
        shows: what is seen, in a line; about: how to read it, in sentences.
        inputs: what it is drawn from: names of ``TABLES``, ``profiles`` (their table, if there is one) or ``records``
            (files of records of its cell).
        options: keys of the config's ``compare`` that ``draw`` is given.
        sources: files of the package, besides its module, whose change draws it anew.
        section: of the page.
        minutes: that a job may take.
        wanted: whether these cells have such a figure.
    """

    module: str
    file: str
    heading: str
    label: str
    shows: str
    about: str
    inputs: tuple[str, ...]
    options: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    section: Literal["figures", "curves"] = "figures"
    minutes: int = 2
    wanted: Callable[[Collection[Cell]], bool] = bool

    def places(self, cells: Collection[Cell]) -> list[dict[str, str]]:
        """Of what there can be a picture: the values of the names in ``file``, each once, in the order of the cells."""
        named = [name for name in Cell._fields if f"{{{name}}}" in self.file]
        values = dict.fromkeys(tuple(getattr(cell, name) for name in named) for cell in cells)
        return [dict(zip(named, each, strict=True)) for each in values]

    def name(self, place: Mapping[str, str]) -> str:
        """Of the file of one picture, below ``figures/``, without its ending."""
        return self.file.format(**place)

    def drawn_from(self, plan: "Grid", place: Mapping[str, str]) -> dict[str, Any]:
        """The files that one picture is drawn from, by the names that ``draw`` has for them."""
        found: dict[str, Any] = {}
        for name in self.inputs:
            if name in TABLES:
                found[name] = str(plan.paths.root / TABLES[name])
            else:
                found[name] = plan.profile_table() if name == "profiles" else plan.shards_of(Cell(**place))
        return found

    def settings(self, plan: "Grid") -> dict[str, Any]:
        """The ``options`` as the config has them."""
        return plan.config.compare.model_dump(include=set(self.options))

    def draw(
        self, inputs: Mapping[str, Any], place: Mapping[str, str], options: Mapping[str, Any], folder: Path
    ) -> None:
        """Write one picture below ``folder``, as PNG and SVG."""
        stem = folder / self.name(place)
        stem.parent.mkdir(parents=True, exist_ok=True)
        module = importlib.import_module(f"distillbench.figures.{self.module}")
        module.draw(**inputs, **place, **options, **{ending: f"{stem}.{ending}" for ending in ENDINGS})


FIGURES = (
    Figure(
        module="scores",
        file="{dataset}",
        heading="Methods",
        label="every seed, mean and interval",
        shows="every seed as a point, mean and 95% interval per method",
        about="{dataset}: every seed as a point, mean and 95% interval per method, in both libraries. Solid line: mean "
        "of the teachers; dashed: the baseline. On the right, runs that finished, and the difference to the same seeds "
        "of the baseline with its verdict.",
        inputs=("runs", "comparison"),
        options=("baseline",),
    ),
    Figure(
        module="pareto",
        file="pareto-{dataset}",
        heading="Accuracy against cost",
        label="accuracy against cost",
        shows="accuracy against what it costs, the frontier marked",
        about="{dataset}: test metric against latency, memory, parameters and training time, for the teacher and every "
        "student, on both libraries. Filled: on the frontier, so that nothing that ran here is at least as good and at "
        "most as expensive. The students of a pair are one model: only the training time tells their methods apart.",
        inputs=("runs", "profiles"),
        options=("baseline",),
        sources=("statistics/pareto.py", "figures/labels.py"),
    ),
    Figure(
        module="libraries",
        file="libraries",
        heading="PyG against DGL",
        label="PyG against DGL",
        shows="PyG against DGL: difference per method with its interval, and the ratio of their training times",
        about="PyG against DGL: per method the difference of the test metric with its 90% interval over the margin of "
        "equivalence, and the ratio of training times with its 95% interval.",
        inputs=("equivalence",),
        sources=("statistics/libraries.py",),
        wanted=lambda cells: {"pyg", "dgl"} <= {cell.backend for cell in cells},
    ),
    Figure(
        module="across",
        file="across",
        heading="Across data sets",
        label="ranks over data sets and pairs",
        shows="All data sets and pairs together: mean ranks and which methods differ",
        about="All data sets and pairs together: critical-difference diagram of mean ranks, interquartile mean and "
        "probability of improvement with stratified bootstrap intervals.",
        inputs=("runs",),
        options=("baseline", "alpha"),
        sources=("statistics/across.py",),
        minutes=5,
        wanted=lambda cells: len({(cell.dataset, cell.pair) for cell in cells}) >= MIN_CELLS,
    ),
    Figure(
        module="curves",
        file="curves/{dataset}-{backend}-{pair}",
        heading="Training curves",
        label="{pair}, {backend}",
        shows="validation curves of every run",
        about="{dataset}, {pair}, {backend}: validation metric by epoch, one line a seed; the point is the epoch whose "
        "weights were kept.",
        inputs=("records",),
        section="curves",
        minutes=1,
    ),
)
# made when asked for, by a rule of its own: it runs the models
STRUCTURE = Figure(
    module="structure",
    file="structure/{dataset}-{backend}-{pair}",
    heading="Structure of the feature space",
    label="{pair}, {backend}",
    shows="distances in the feature space from one marked point",
    about="{dataset}, {pair}: distances in the feature space from one marked point to the others, of the teacher, of a "
    "student with distillation and of a student alone (the picture of Yang et al., CVPR 2020).",
    inputs=(),
)


def pictures_of(cells: Collection[Cell]) -> list[tuple[Figure, dict[str, str]]]:
    """Kind and place of every picture that a run of these cells ends in."""
    return [(figure, place) for figure in FIGURES if figure.wanted(cells) for place in figure.places(cells)]


def taken_twice(cells: Collection[Cell]) -> dict[str, list[str]]:
    """Names of figures that two data sets, or a data set and the whole run, would have; and whose these are."""
    owners: dict[str, list[str]] = {}
    for figure in FIGURES:
        for place in figure.places(cells):
            owners.setdefault(figure.name(place), []).append(place.get("dataset", ""))
    return {name: whose for name, whose in owners.items() if len(whose) > 1}


def figure_files(plan: "Grid") -> list[str]:
    """All figures that a config asks for, in two formats."""
    folder = plan.paths.root / "figures"
    return [
        f"{folder / figure.name(place)}.{ending}" for figure, place in pictures_of(plan.cells) for ending in ENDINGS
    ]
