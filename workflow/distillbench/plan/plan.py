"""The plan: which files a config asks for, and what they must hold. Imports no torch.

The DAG asks the plan for everything it needs to know; which runs there are is in distillbench.plan.grid, which files a
result depends on in distillbench.plan.sources.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillbench.config.config import Config, ConfigError, Pair, Protocol, name_files, read_config
from distillbench.config.yaml_files import folder_problem, problem_of
from distillbench.params import METRICS, TEACHER, suggestion
from distillbench.paths import Cell
from distillbench.plan.checks import problems_of
from distillbench.plan.grid import Grid
from distillbench.plan.tuning import with_chosen
from distillbench.record import digest


class Plan(Grid):
    """Everything a config asks for. Building it checks what can be checked without training anything.

    Raises:
        ConfigError: bad value, unknown name, or a method that cannot apply to a task or a pair; the message names the
            file, the key, the value and the nearest valid one.
    """

    def __init__(self, config: Config, files: Sequence[str | Path] = (), root: Path = Path()) -> None:
        super().__init__(config, files, root)
        if problems := problems_of(self):
            raise ConfigError(f"{name_files(files)}:\n" + "\n".join(f"  {problem}" for problem in problems))

    def shard_files(self) -> list[str]:
        """All files of records, teachers first within a cell."""
        return [shard for cell in self.cells for shard in self.shards_of(cell)]

    def expected(self, further: bool = False) -> dict[str, dict[str, Any]]:
        """What each file of records must hold: its seeds, digests of their code and of their hyper-parameters.

        Where the last are tuned, the parameters of the job instead (see asked_hyperparameters).
        further: also the files of further teachers, which are in no table.
        """
        runs = [(cell, method) for cell in self.cells for method in (TEACHER, *self.methods_of(cell))]
        runs += [(cell, TEACHER) for cell in self.further_teachers() if further]
        files = {}
        for cell, method in runs:
            code = self.code_digest(cell, method)
            for shard in self.shards:
                if method == TEACHER:
                    params = self.teacher_params(cell, shard)
                else:
                    params = self.student_params(cell, method, shard)
                file = str(self.paths.shard(cell, method, shard))
                files[file] = {"seeds": params["seeds"], "code": code}
                if "tuned" in params:
                    files[file] |= {"params": params}
                else:
                    files[file] |= {"hyperparameters": digest(hyperparameters(params))}
        return files

    def code_files(self) -> list[str]:
        """All files whose content is in a digest of the code of ``expected``."""
        runs = [(cell, method) for cell in self.cells for method in (TEACHER, *self.methods_of(cell))]
        different = {self.code_key(*run): run for run in runs}.values()
        return list(dict.fromkeys(file for run in different for file in self.run_sources(*run)))

    def profile_files(self) -> list[str]:
        """All profiles."""
        return [
            str(self.paths.profile(cell, role))
            for cell in (self.cells if self.config.profile else [])
            for role in (TEACHER, "student")
        ]

    def table_files(self) -> list[str]:
        """The tables that a run ends in."""
        names = ["runs.csv", "runs.parquet", "rows.npz"]
        names += [f"comparison.{ending}" for ending in ("csv", "parquet", "html", "tex", "md")]
        names += ["equivalence.csv", "times.csv", "across.csv", "pareto.csv"]
        names += ["tuning.csv"] if self.config.tune else []
        names += ["profiles.csv"] if self.config.profile else []
        if self.published_pairs():
            names += [f"reproduction.{ending}" for ending in ("csv", "html", "md")]
        return [str(self.paths.root / "tables" / name) for name in names]

    def structure_files(self) -> list[str]:
        """One figure of the feature space per cell, in two formats. Raises ConfigError where there is none to draw."""
        names = ["-".join(cell) for cell in self.structure_cells()]
        wanted = self.config.structure.methods
        special = [m for m in wanted if m in self.methods and self._is_special(m)]
        if special:
            problem = f"{', '.join(special)}: a student or teachers of its own, which are not drawn"
            raise ConfigError(f"{name_files(self.files)}:\n  structure.methods: {problem}")
        if not names:
            hints = [f"; {m!r}{suggestion(m, self.methods)}" for m in wanted if m not in self.methods]
            problem = f"no pair is run with all of: {', '.join(wanted)}{''.join(hints)}"
            raise ConfigError(f"{name_files(self.files)}:\n  structure.methods: {problem}")
        folder = self.paths.root / "figures" / "structure"
        return [str(folder / f"{name}.{ending}") for name in names for ending in ("png", "svg")]

    def _is_special(self, method: str) -> bool:
        """Whether a run of a variant needs more than the pair's student and its teacher's outputs."""
        return bool({"teachers", "model"} & self.variant(method).requires or self._changes_student(method))

    @property
    def runs(self) -> int:
        """Number of runs: a teacher and all students for each seed of each cell."""
        teachers = len(self.cells) + len(self.further_teachers())
        return (teachers + sum(len(self.methods_of(cell)) for cell in self.cells)) * self.config.seeds

    def published_pairs(self) -> list[dict[str, Any]]:
        """The pairs that are set beside published results, and beside which."""
        return [
            {
                "dataset": dataset,
                "pair": name,
                "protocol": self._departures(pair),
                **pair.published.model_dump(mode="json"),
            }
            for dataset, entry in self.config.datasets.items()
            for name, pair in entry.pairs.items()
            if pair.published
        ]

    def remarks(self) -> list[str]:
        """What a reader of the tables has to know about some pairs: their protocol, methods that do not apply."""
        texts = []
        for dataset, entry in self.config.datasets.items():
            for name, pair in entry.pairs.items():
                if departures := self._departures(pair):
                    texts.append(f"{dataset}, {name}: the protocol departs from the usual one in {departures}.")
                if pair.methods is None:
                    cell = Cell(dataset, self.config.backends[0], name)
                    left: dict[str, list[str]] = {}
                    for method in self.methods:
                        if reason := self.unfit(cell, method):
                            left.setdefault(reason.removeprefix("is "), []).append(method)
                    said = "; ".join(f"{', '.join(methods)} ({reason})" for reason, methods in left.items())
                    texts += [f"{dataset}, {name}: not run: {said}."] if said else []
        if self.config.profile and (own := [m for m in self.methods if self._changes_student(m)]):
            whose = ", ".join(own)
            texts.append(f"The profiles are of the pairs' plain students, without what these methods add: {whose}.")
        return texts

    def _changes_student(self, method: str) -> bool:
        defined = frozenset.union(*(part.declared.defines for part in self.variant(method).parts))
        return bool({"student_inputs", "wrap_student"} & defined)

    def _departures(self, pair: Pair) -> str:
        """In what a pair's protocol departs from the usual one; nothing where it does not."""
        protocol, usual = self.protocol(pair).model_dump(), Protocol().model_dump()
        return ", ".join(f"{key}: {value}" for key, value in protocol.items() if value != usual[key])

    def structure_inputs(self, cell: Cell) -> list[str]:
        """The shards that have the seed which is drawn: of the teacher, then of each student."""
        methods = (TEACHER, *self.config.structure.methods)
        return [str(self.paths.shard(cell, method, self._structure_shard)) for method in methods]

    def structure_params(self, cell: Cell) -> dict[str, Any]:
        """Which features are drawn, and everything that decides the runs they are of."""
        drawn, pair = self.config.structure, self.pair(cell)
        matched = self.variant(drawn.methods[0]).params(pair).get("layers") or pair.layers or [(-1, -1)]
        return {
            "seed": drawn.seed,
            "graph": drawn.graph,
            "node": drawn.node,
            "epochs": list(drawn.epochs),
            "layers": list(drawn.layers or matched[0]),
            "teacher": self.teacher_params(cell, self._structure_shard),
            "students": {name: self.student_params(cell, name, self._structure_shard) for name in drawn.methods},
        }

    @property
    def _structure_shard(self) -> int:
        return self.config.structure.seed // self.seeds_per_job

    def cards(self) -> list[str]:
        """The descriptions of all data sets that can be used here."""
        return [str(self.paths.data(name) / "data.json") for name in dict.fromkeys(c.dataset for c in self.cells)]

    def skipped(self) -> list[dict[str, Any]]:
        """Records of the runs that cannot be done here, with the reason: the tables show them."""
        rows = []
        for cell in self.all_cells:
            if cell.backend not in self.missing:
                continue
            declared = self.dataset_declaration(cell.dataset)
            metric = declared.attributes.get("metric") or METRICS[declared.task]
            common = {**cell._asdict(), "task": declared.task, "metric": metric, "key": "", "status": "skipped"}
            rows += [
                {**common, "method": method, "role": role, "seed": seed, "reason": self.missing[cell.backend]}
                for role, methods in (("teacher", [TEACHER]), ("student", self.methods_of(cell)))
                for method in methods
                for seed in range(self.config.seeds)
            ]
        return rows


def hyperparameters(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a job's parameters that its records keep."""
    return {
        "model": params["model"],
        "training": params["training"],
        "method": params.get("method", {}).get("params", {}),
        "protocol": params["protocol"],
        "dataset": without_path(params["dataset_params"]),
    }


def asked_hyperparameters(asked: dict[str, Any]) -> str:
    """Digest of the hyper-parameters that a file of ``Plan.expected`` must hold, the chosen values among them.

    Raises RecordError naming the file of chosen values where it cannot be trusted.
    """
    return digest(hyperparameters(with_chosen(asked["params"]))) if "params" in asked else str(asked["hyperparameters"])


def without_path(dataset_params: dict[str, Any]) -> dict[str, Any]:
    """A data set's parameters but for where its files are: what they hold is known by the data's digest."""
    return {key: value for key, value in dataset_params.items() if key != "path"}


def make_plan(values: dict[str, Any], files: Sequence[str | Path], root: Path) -> Plan:
    """Check a config's values and plan its runs. ``root`` holds methods/, datasets/ and models/. Raises ConfigError."""
    for file in map(Path, files):
        if file.is_file() and (problem := problem_of(file)):
            raise ConfigError(f"{file}: {problem}")
    try:
        config = read_config(values, files, root)
    except ConfigError as error:
        named = values.get("plugins") if isinstance(values, dict) else None
        folders = [each for each in named if isinstance(each, str)] if isinstance(named, list | tuple) else []
        if problem := folder_problem("results", folders, None, root):  # where a model may have been looked for
            raise ConfigError(f"{error}\n  {problem}") from None
        raise
    if problem := folder_problem(config.results, config.plugins, config.export, root):
        raise ConfigError(f"{name_files(files)}:\n  {problem}")
    plan = Plan(config, files, root)
    folder = next(folder for folder in (plan.paths.root, *plan.paths.root.absolute().parents) if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ConfigError(f"{name_files(files)}:\n  results: {plan.config.results!r}: {folder} cannot be written to")
    return plan
