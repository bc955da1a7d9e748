"""What the names of a config stand for, and the files that each result depends on. Imports no torch."""

import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from distillbench.config import Config, DatasetConfig, Pair
from distillbench.params import TEACHER
from distillbench.paths import Cell
from distillbench.plugins import Declaration, declaration, find
from distillbench.record import digest, file_digest
from distillbench.variants import Variant, read_variant

PACKAGE = Path(__file__).parent
# what a training run's result depends on: part of every record's key, and by content a parameter of its rule
DATA_SOURCES = ("data.py", "tasks.py", "archives.py", "clouds.py", "readers.py", "heterophilous.py", "ogb_files.py")
MODEL_SOURCES = (
    "data.py",
    "clouds.py",
    "seeds.py",
    "specs.py",
    "tasks.py",
    "compressed_rows.py",
    "backends/base.py",
    "neighbours.py",
    "models.py",
    "method.py",
    "inputs.py",
    "steps.py",
    "production.py",
    "train.py",
    "experiment.py",
)
BACKEND_SOURCES = {"csr": ("backends/adjacency.py", "backends/csr_functions.py")}  # beside its own file
METHOD_SOURCES = ("structure.py", "edge_products.py", "blocks.py", "combination.py")


class Sources:
    """A config's data sets, pairs and method variants, found by name; and the files that each result depends on.

    The rules that have jobs in every cell get these files as a parameter, by content (``contents``), and only a
    method's own file as an input: Snakemake's time goes by inputs of jobs, and so it handles a third of them. What a
    parameter was when a job ran is in Snakemake's metadata alone: where that is missing or not asked, nothing is run
    again, and the rule ``collect`` refuses records whose ``code_digest`` is another.

    files: the config's own, named in errors. root: the folder of methods/ and datasets/.
    """

    def __init__(self, config: Config, files: Sequence[str | Path] = (), root: Path = Path()) -> None:
        self.config, self.files, self.root = config, files, root
        # a DAG asks for each of these hundreds of times
        self._variants: dict[str, Variant] = {}
        self._declarations: dict[str, Declaration] = {}
        self._dataset_params: dict[str, Any] = {}
        self._contents: dict[str, str] = {}
        self._codes: dict[tuple[str, str, str], str] = {}

    # what its names stand for

    def dataset_declaration(self, name: str) -> Declaration:
        """What the plug-in of a data set declares. Raises PluginError."""
        if name not in self._declarations:
            file = self.entry(name).dataset or name
            self._declarations[name] = _declared("dataset", file, tuple(self._folders("dataset")))
        return self._declarations[name]

    def variant(self, name: str) -> Variant:
        """What an entry under ``methods`` stands for. Raises PluginError."""
        if name not in self._variants:
            folders = tuple(self._folders("method"))
            declare = partial(_declared, "method", folders=folders)
            self._variants[name] = read_variant(name, self.config.methods, declare)
        return self._variants[name]

    def dataset_params(self, name: str) -> Any:
        """A data set's parameters. Raises PluginError, pydantic's ValidationError."""
        if name not in self._dataset_params:
            self._dataset_params[name] = self.dataset_declaration(name).params(**self.entry(name).params)
        return self._dataset_params[name]

    def pair(self, cell: Cell) -> Pair:
        """The pair of a cell; of a further teacher's, the pair with that teacher."""
        name, _, further = cell.pair.partition("@")
        pair = self.entry(cell.dataset).pairs[name]
        return pair.model_copy(update={"teacher": pair.teachers[further], "teachers": {}}) if further else pair

    def entry(self, dataset: str) -> DatasetConfig:
        """A data set's part of the config."""
        return self.config.datasets[dataset]

    # what each depends on

    def contents(self, files: Sequence[str]) -> dict[str, str]:
        """Files with the beginning of their digest, when first asked for: where that differs a job is run again."""
        return {file: self._content(file)[:16] for file in files}

    def code_digest(self, dataset: str, backend: str, method: str) -> str:
        """What the records of a method's runs, or of the teacher's, must have as the digest of their code (see Job)."""
        key = (dataset, backend, method)
        if key not in self._codes:
            self._codes[key] = digest(sorted(self._content(file) for file in self.run_sources(*key)))
        return self._codes[key]

    def run_sources(self, dataset: str, backend: str, method: str) -> list[str]:
        """Source files that a run's result depends on: a student's, or the teacher's."""
        if method == TEACHER:
            return self.teacher_sources(dataset, backend)
        return self.student_sources(dataset, backend, method)

    def dataset_file(self, dataset: str) -> str:
        """The plug-in file of a data set."""
        return _relative(self.dataset_declaration(dataset).path)

    def structure_sources(self, cell: Cell) -> list[str]:
        """Source files that a figure of the feature space depends on."""
        names = ("figures.py", "structure_panels.py", "structure_figures.py")
        methods = [file for method in self.config.structure.methods for file in self.method_files(method).values()]
        return [*self.teacher_sources(cell.dataset, cell.backend), *_sources(*METHOD_SOURCES, *names), *methods]

    def data_files(self, dataset: str) -> list[str]:
        """The file a data set is read from, where its parameters name one that is there."""
        path = getattr(self.dataset_params(dataset), "path", None)
        file = Path(path).expanduser() if path else None
        return [_relative(file)] if file and file.is_file() else []

    def data_sources(self) -> list[str]:
        """Source files that every data set depends on."""
        return _sources(*DATA_SOURCES)

    def method_files(self, method: str) -> dict[str, str]:
        """The plug-in files of a method variant, by the name of its parts."""
        return {part.name: _relative(part.declared.path) for part in self.variant(method).parts}

    def teacher_sources(self, dataset: str, backend: str) -> list[str]:
        """Source files that a teacher's result depends on."""
        names = [*MODEL_SOURCES, *_of_backend(backend)]
        if "draw_split" in self.dataset_declaration(dataset).defines:  # splits are drawn when a run starts
            names.append("readers.py")
        return [*_sources(*names), self.dataset_file(dataset)]

    def student_sources(self, dataset: str, backend: str, method: str) -> list[str]:
        """Source files that a student's result depends on."""
        files = list(dict.fromkeys(self.method_files(method).values()))  # two parts may be variants of one method
        return self.teacher_sources(dataset, backend) + _sources(*METHOD_SOURCES) + files

    def tuning_sources(self, dataset: str, backend: str, method: str) -> list[str]:
        """Source files that the values chosen for a method depend on."""
        return self.student_sources(dataset, backend, method) + _sources("study.py")

    def profile_sources(self, backend: str) -> list[str]:
        """Source files that a profile depends on."""
        names = (
            "profiling.py", "measuring.py", "peak_memory.py", "flops.py", "exported.py", "energy.py",
            "profile_table.py",  # past what difference a figure is mistrusted
        )  # fmt: skip
        return _sources(*MODEL_SOURCES, *_of_backend(backend), "allocator.py", *names)

    def table_sources(self) -> list[str]:
        """Source files that the tables depend on."""
        names = ("frames.py", "paired.py", "power.py", "stats.py", "libraries.py", "across.py", "pareto.py")
        written = ("tables.py", "comparison_table.py", "latex.py", "tuning_table.py", "profile_table.py", "reports.py")
        return _sources(*names, *written)

    def figure_sources(self, *names: str) -> list[str]:
        """Source files that a figure depends on, ``names`` and what all figures share."""
        return _sources("drawing.py", "style.py", "distillbench.mplstyle", "tables.py", *names)

    def report_sources(self) -> list[str]:
        """Files that the report page depends on."""
        names = ("report.py", "report_data.py", "report_tables.py", "profile_table.py", "conclusions.py", "across.py")
        return _sources(*names, "templates/index.html.jinja")

    def reproduce_sources(self) -> list[str]:
        """Files that the comparison with published results depends on."""
        names = ("claims.py", "reproduce.py", "reproduction_table.py", "stats.py", "tables.py")
        return _sources(*names, "reference/published.csv")

    # inside

    def _content(self, file: str) -> str:
        if file not in self._contents:
            self._contents[file] = file_digest(Path(file))
        return self._contents[file]

    def _folders(self, kind: str) -> list[Path]:
        return [self.root / f"{kind}s", *[Path(folder) for folder in self.config.plugins]]


def _declared(kind: Any, name: str, folders: tuple[Path, ...], _cache: dict[Any, Declaration] = {}) -> Declaration:  # noqa: B006
    path = find(kind, name, folders)
    key = (kind, path, path.stat().st_mtime_ns)
    if key not in _cache:
        _cache[key] = declaration(kind, path)
    return _cache[key]


def _of_backend(backend: str) -> tuple[str, ...]:
    return (f"backends/{backend}.py", *BACKEND_SOURCES.get(backend, ()))


def _sources(*names: str) -> list[str]:
    return list(_sources_seen_from(Path.cwd(), names))


@cache
def _sources_seen_from(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_seen_from(folder, PACKAGE / name) for name in names)


def _relative(path: Path) -> str:
    """Seen from the working directory: a folder moved as a whole has the same inputs and parameters, reruns nothing."""
    return _seen_from(Path.cwd(), path)


@cache
def _seen_from(folder: Path, path: Path) -> str:
    return os.path.relpath(path, folder)
