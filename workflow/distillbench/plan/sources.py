"""What the names of a config stand for, and the files that each result depends on. Imports no torch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from distillbench.config.config import Config, DatasetConfig, Pair, plugin_folders
from distillbench.config.specs import plugin_of
from distillbench.config.variants import Variant, read_variant
from distillbench.params import TEACHER, Splits
from distillbench.paths import PACKAGE, Cell
from distillbench.plugins import Declaration, declaration, find, neighbours
from distillbench.record import digest, file_digest

# what a training run's result depends on: part of every record's key, and by content a parameter of its rule
DATA_SOURCES = (
    "seeds.py",
    "data/graph_data.py",
    "data/conversions.py",
    "data/promises.py",
    "data/tasks.py",
    "data/archives.py",
    "data/clouds.py",
    "data/readers.py",
    "data/heterophilous.py",
    "data/ogb.py",
)
MODEL_SOURCES = (
    "seeds.py",
    "calibration.py",
    "config/specs.py",
    "data/graph_data.py",
    "data/conversions.py",
    "data/clouds.py",
    "data/tasks.py",
    "data/neighbours.py",
    "data/production.py",
    "models/gnn.py",
    "models/backends/base.py",
    "models/backends/compressed_rows.py",
    "distillation/method.py",
    "training/inputs.py",
    "training/steps.py",
    "training/fit.py",
    "training/experiment.py",
)
HASHED = 64 * 2**20  # bytes of a data file, up to which it is known by its content
BACKEND_SOURCES = {"csr": ("models/backends/adjacency.py", "models/backends/csr_functions.py")}  # beside its own file
METHOD_SOURCES = (
    "distillation/structure.py",
    "distillation/edge_products.py",
    "distillation/blocks.py",
    "distillation/combination.py",
)


class Sources:
    """A config's data sets, pairs and method variants, found by name; and the files that each result depends on.

    The rules that have jobs in every cell get these files as a parameter, by content (``contents``), and only a
    method's own file as an input: Snakemake's time goes by inputs of jobs, and so it handles a third of them. What a
    parameter was when a job ran is in Snakemake's metadata alone: where that is missing or not asked, nothing is run
    again, and the rule ``collect`` refuses records whose ``code_digest`` is another.

    files: the config's own, named in errors. root: the folder of methods/, datasets/ and models/.
    """

    def __init__(self, config: Config, files: Sequence[str | Path] = (), root: Path = Path()) -> None:
        self.config, self.files, self.root = config, files, root
        # a DAG asks for each of these hundreds of times
        self._variants: dict[str, Variant] = {}
        self._declarations: dict[str, Declaration] = {}
        self._dataset_params: dict[str, Any] = {}
        self._contents: dict[str, str] = {}
        self._codes: dict[tuple[str, ...], str] = {}
        self._with_neighbours: dict[Path, list[str]] = {}

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
            declared, usual = self.dataset_declaration(name), self.config.protocol.splits
            common = {"splits": usual} if usual and redraws(declared) else {}
            self._dataset_params[name] = declared.params(**{**common, **self.entry(name).params})
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

    def code_digest(self, cell: Cell, method: str) -> str:
        """What the records of a method's runs, or of the teacher's, must have as the digest of their code (see Job)."""
        key = self.code_key(cell, method)
        if key not in self._codes:
            self._codes[key] = code_of((file, self._content(file)) for file in self.run_sources(cell, method))
        return self._codes[key]

    def code_key(self, cell: Cell, method: str) -> tuple[str, ...]:
        """Runs with equal keys have the same source files."""
        return (cell.dataset, cell.backend, method, *self._plugins_of(cell, method))

    def run_sources(self, cell: Cell, method: str) -> list[str]:
        """Source files that a run's result depends on: a student's, or the teacher's."""
        return self.teacher_sources(cell) if method == TEACHER else self.student_sources(cell, method)

    def dataset_file(self, dataset: str) -> str:
        """The plug-in file of a data set."""
        return relative(self.dataset_declaration(dataset).path)

    def structure_sources(self, cell: Cell) -> list[str]:
        """Source files that a figure of the feature space depends on."""
        names = ("figures/scores.py", "figures/structure_panels.py", "figures/structure.py")
        methods = [file for method in self.config.structure.methods for file in self.method_sources(method)]
        models = self._plugins_of(cell, self.config.structure.methods[0])
        return list(dict.fromkeys((*self.teacher_sources(cell), *_sources(*METHOD_SOURCES, *names), *methods, *models)))

    def data_files(self, dataset: str) -> list[str]:
        """The files a data set is read from: those that its parameters name, and all in the folders that they name."""
        found: list[Path] = []
        for value in _texts(self.dataset_params(dataset).model_dump(mode="json")):
            try:
                path = Path(value).expanduser()
                if Path.cwd().is_relative_to(path.resolve()):  # such as "/" or ".", which stand for something else
                    continue
                inside = path.rglob("*") if path.is_dir() else (path,)
                found += [file for file in inside if file.is_file() and not _hidden(file, path)]
            except (OSError, ValueError, RuntimeError):  # too long for a name, no text for one, nobody's home
                continue
        return [relative(file) for file in sorted(dict.fromkeys(found))]

    def data_marks(self, dataset: str) -> list[str]:
        """Of each of these files what changes with its content: its digest, or size and time of a very large one."""
        marks = []
        for file in self.data_files(dataset):
            about = Path(file).stat()
            large = about.st_size > HASHED
            marks.append(f"{about.st_size}:{about.st_mtime_ns}" if large else self._content(file))
        return sorted(marks)  # whatever the files are called: a folder that is moved is the same

    def data_sources(self, dataset: str) -> list[str]:
        """Source files that a data set depends on, beside its own."""
        return [*_sources(*DATA_SOURCES), *self.dataset_sources(dataset)[1:]]

    def method_files(self, method: str) -> dict[str, str]:
        """The plug-in files of a method variant, by the name of its parts."""
        return {part.name: relative(part.declared.path) for part in self.variant(method).parts}

    def method_sources(self, method: str) -> list[str]:
        """The plug-in files of a method variant, and their neighbours that these import."""
        files = [each for part in self.variant(method).parts for each in self._and_neighbours(part.declared.path)]
        return list(dict.fromkeys(files))  # two parts may be variants of one method

    def dataset_sources(self, dataset: str) -> list[str]:
        """The plug-in file of a data set, and its neighbours that it imports."""
        return self._and_neighbours(self.dataset_declaration(dataset).path)

    def teacher_sources(self, cell: Cell) -> list[str]:
        """Source files that a teacher's result depends on."""
        return self._sources_of_runs(cell, TEACHER)

    def student_sources(self, cell: Cell, method: str) -> list[str]:
        """Source files that a student's result depends on."""
        files = self.method_sources(method)
        return list(dict.fromkeys((*self._sources_of_runs(cell, method), *_sources(*METHOD_SOURCES), *files)))

    def tuning_sources(self, cell: Cell, method: str) -> list[str]:
        """Source files that the values chosen for a method depend on."""
        return self.student_sources(cell, method) + _sources("jobs/tune.py")

    def profile_sources(self, cell: Cell) -> list[str]:
        """Source files that the profiles of a pair depend on."""
        names = (*MODEL_SOURCES, *_of_backend(cell.backend), "training/allocator.py")
        return [*_sources(*names, *_room("profiling")), *self._plugins_of(cell)]

    def table_sources(self) -> list[str]:
        """Source files that the tables depend on."""
        return _sources(
            "runs.py", "predictions.py", "wording.py", *_room("statistics"), *_room("tables"), "jobs/tables.py"
        )

    def figure_sources(self, *names: str) -> list[str]:
        """Files of the package that a figure depends on: ``names``, and what all figures share."""
        shared = ("figures/style.py", "figures/distillbench.mplstyle", "runs.py", "wording.py")
        return _sources(*shared, *names)

    def report_sources(self) -> list[str]:
        """Files that the report page depends on."""
        names = ("runs.py", "wording.py", *_room("statistics"), *_room("tables"), *_room("report"))
        return _sources(*names, "report/templates/index.html.jinja")

    def reproduce_sources(self) -> list[str]:
        """Files that the comparison with published results depends on."""
        names = ("runs.py", "wording.py", "plan/published.py", "plan/reference/published.csv")
        return _sources(*names, *_room("statistics"), "tables/reproduction.py", "jobs/reproduce.py")

    # inside

    def _sources_of_runs(self, cell: Cell, method: str) -> list[str]:
        names = [*MODEL_SOURCES, *_of_backend(cell.backend)]
        if "draw_split" in self.dataset_declaration(cell.dataset).defines:  # splits are drawn when a run starts
            names.append("data/readers.py")
        return [*_sources(*names), *self.dataset_sources(cell.dataset), *self._plugins_of(cell, method)]

    def _plugins_of(self, cell: Cell, method: str | None = None) -> list[str]:
        """Of the models of a teacher's run, or of a student's, those that are plug-ins, and their neighbours."""
        pair = self.pair(cell)
        taught = method is None or method == TEACHER or bool(self.variant(method).requires)
        models = [*([pair.teacher] if taught else []), *([pair.student] if method != TEACHER else [])]
        declared = [found for spec in models if (found := plugin_of(spec))]
        return list(dict.fromkeys(file for each in declared for file in self._and_neighbours(each.path)))

    def _content(self, file: str) -> str:
        if file not in self._contents:
            self._contents[file] = file_digest(Path(file))
        return self._contents[file]

    def _and_neighbours(self, file: Path) -> list[str]:
        if file not in self._with_neighbours:
            self._with_neighbours[file] = [relative(each) for each in (file, *neighbours(file))]
        return self._with_neighbours[file]

    def _folders(self, kind: str) -> list[Path]:
        return plugin_folders(kind, self.root, self.config.plugins)


def redraws(dataset: Declaration) -> bool:
    """Whether a data set has published splits and, where its parameter ``splits`` says so, random ones."""
    field = dataset.params.model_fields.get("splits")
    asked: Any = field.annotation if field else None
    return bool(asked == Splits)


def code_of(files: Iterable[tuple[str, str]]) -> str:
    """One digest of files and the digests of their contents: by the files' names, wherever their folders are."""
    return digest(sorted((Path(file).name, content) for file, content in files))


def _declared(kind: Any, name: str, folders: tuple[Path, ...], _cache: dict[Any, Declaration] = {}) -> Declaration:  # noqa: B006
    path = find(kind, name, folders)
    key = (kind, path, path.stat().st_mtime_ns)
    if key not in _cache:
        _cache[key] = declaration(kind, path)
    return _cache[key]


def _texts(value: Any) -> Iterator[str]:
    """All texts in a parameter's value."""
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _of_backend(backend: str) -> tuple[str, ...]:
    return (f"models/backends/{backend}.py", *BACKEND_SOURCES.get(backend, ()))


@cache
def _room(name: str) -> tuple[str, ...]:
    """All files of a package, where it takes less to run its rules again than to tell which of them needs what."""
    return tuple(f"{name}/{file.name}" for file in sorted((PACKAGE / name).glob("*.py")))


def _sources(*names: str) -> list[str]:
    return list(_sources_seen_from(Path.cwd(), names))


@cache
def _sources_seen_from(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_seen_from(folder, PACKAGE / name) for name in names)


def relative(path: Path) -> str:
    """Seen from the working directory: a folder moved as a whole has the same inputs and parameters, reruns nothing."""
    return _seen_from(Path.cwd(), path)


@cache
def _seen_from(folder: Path, path: Path) -> str:
    return os.path.relpath(path, folder)
