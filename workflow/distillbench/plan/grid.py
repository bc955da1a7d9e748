"""The grid of a config: cells, methods, teachers and seeds, and what decides each run's result. Imports no torch."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from distillbench.config.config import Config, Pair, Protocol
from distillbench.config.specs import Spec, plugin_of
from distillbench.models.backends import missing_reason
from distillbench.params import TEACHER
from distillbench.paths import Cell, Paths
from distillbench.plan.resources import Demand, data_demand, demand
from distillbench.plan.sources import Sources, relative
from distillbench.plan.tuning import space_of

LARGE = 1000  # models of a grid, teachers and students


class Grid(Sources):
    """What a config runs on which teachers with which seeds; arguments as of Sources."""

    def __init__(self, config: Config, files: Sequence[str | Path] = (), root: Path = Path()) -> None:
        super().__init__(config, files, root)
        self.paths = Paths(config.results)
        self._applying: dict[Cell, list[str]] = {}
        self._demands: dict[tuple[Cell, int], Demand] = {}

    # what there is

    @cached_property
    def missing(self) -> dict[str, str]:
        """Backends that were asked for and are not installed, with the reason."""
        reasons = {backend: missing_reason(backend) for backend in self.config.backends}
        return {backend: reason for backend, reason in reasons.items() if reason}

    @cached_property
    def all_cells(self) -> list[Cell]:
        """Every cell of the config."""
        return [
            Cell(dataset, backend, pair)
            for dataset, entry in self.config.datasets.items()
            for backend in self.config.backends
            for pair in entry.pairs
        ]

    @property
    def cells(self) -> list[Cell]:
        """The cells that can run here."""
        return [cell for cell in self.all_cells if cell.backend not in self.missing]

    @property
    def methods(self) -> list[str]:
        """Names of the variants, in the order of the config."""
        return list(self.config.methods)

    def methods_of(self, cell: Cell) -> list[str]:
        """Names of the variants that are run in a cell: those its pair names, else all that apply to it."""
        if cell not in self._applying:
            chosen = self.pair(cell).methods
            fits = [m for m in self.methods if (m in chosen if chosen else not self.unfit(cell, m))]
            self._applying[cell] = fits
        return self._applying[cell]

    def unfit(self, cell: Cell, method: str) -> str | None:
        """Why a variant does not apply to a cell; None where it does."""
        pair = self.pair(cell)
        return self.variant(method).unfit(self.dataset_declaration(cell.dataset), pair, self.protocol(pair))

    def teachers_of(self, cell: Cell, method: str) -> list[Cell]:
        """The cells of the teachers that a variant needs: the pair's own first, then further ones."""
        requires = self.variant(method).requires
        further = [cell._replace(pair=f"{cell.pair}@{name}") for name in self.pair(cell).teachers]
        return ([cell] if requires else []) + (further if "teachers" in requires else [])

    def further_teachers(self) -> list[Cell]:
        """The cells of all further teachers that are needed."""
        needed = (
            each
            for cell in self.cells
            for method in self.methods_of(cell)
            for each in self.teachers_of(cell, method)[1:]
        )
        return list(dict.fromkeys(needed))

    def structure_cells(self) -> list[Cell]:
        """The cells whose features are drawn: those with every method that is to be drawn."""
        return [cell for cell in self.cells if set(self.config.structure.methods) <= set(self.methods_of(cell))]

    @cached_property
    def seeds_per_job(self) -> int:
        """How many seeds of a model one job trains: what the config says, else 5, or all of them in a large grid.

        Where a thousand models keep the cores busy, dividing their seeds too only makes more jobs to plan. With another
        number every job runs again, but trains only what no record is there of.
        """
        if self.config.execution.seeds_per_job:
            return self.config.execution.seeds_per_job
        models = sum(1 + len(self.methods_of(cell)) for cell in self.all_cells)
        return self.config.seeds if models >= LARGE else 5

    @property
    def shards(self) -> list[int]:
        """Numbers of the jobs that the seeds are divided into."""
        return list(range(-(-self.config.seeds // self.seeds_per_job)))

    def seeds(self, shard: int) -> list[int]:
        """Seeds of one job. A shard keeps its seeds when more are asked for, so old jobs stay as they are."""
        size = self.seeds_per_job
        return list(range(shard * size, min((shard + 1) * size, self.config.seeds)))

    # files

    def profile_table(self) -> list[str]:
        """The table of profiles, if the config asks for any."""
        return [str(self.paths.root / "tables/profiles.csv")] if self.config.profile else []

    def shards_of(self, cell: Cell) -> list[str]:
        """All files of records of a cell, the teacher's first."""
        methods = (TEACHER, *self.methods_of(cell))
        return [str(self.paths.shard(cell, method, shard)) for method in methods for shard in self.shards]

    # what decides each result

    def data_params(self, dataset: str) -> dict[str, Any]:
        """Parameters of the rule that writes a data set."""
        params = self.dataset_params(dataset).model_dump(mode="json")
        return {"name": dataset, "params": params, "files": self.data_marks(dataset)}

    def teacher_params(self, cell: Cell, shard: int) -> dict[str, Any]:
        """Everything that decides the teachers' results, and the seeds to train."""
        pair = self.pair(cell)
        return {
            **self._run_params(cell, self.seeds(shard), pair.teacher),
            "model": pair.teacher.model_dump(mode="json"),
            "training": (pair.teacher_training or pair.training).model_dump(mode="json"),
            # what concerns students only is not to retrain teachers
            "protocol": self.protocol(pair).model_dump(
                include={"setting", "decision", "score", "teacher_selection", "validate_every"}
            ),
        }

    def student_params(self, cell: Cell, method: str, shard: int) -> dict[str, Any]:
        """Everything that decides the students' results, and the seeds to train.

        tuned: the file of the values chosen by tuning, which replace those here, and the budget it must have had.
        """
        params = self._untuned_params(cell, method, self.seeds(shard))
        if self.config.tune is None:
            return params
        file = str(self.paths.tuning(cell.dataset, cell.pair, method))
        return {**params, "tuned": {"file": file, **self.config.tune.model_dump()}}

    def _untuned_params(self, cell: Cell, method: str, seeds: list[int]) -> dict[str, Any]:
        pair = self.pair(cell)
        return {
            **self._run_params(cell, seeds, pair.student, pair.teacher),
            "model": pair.student.model_dump(mode="json"),
            "training": pair.training.model_dump(mode="json"),
            "teacher_model": pair.teacher.model_dump(mode="json"),
            "protocol": self.protocol(pair).model_dump(mode="json"),
            "method": {
                "name": method,
                "files": self.method_files(method),
                "params": self.variant(method).params(pair),
                "requires": sorted(self.variant(method).requires),
                "teachers": [each.pair for each in self.teachers_of(cell, method)],
            },
        }

    def demand(self, cell: Cell, runs: int) -> Demand:
        """What a job with so many runs in a cell asks of a batch system."""
        if (cell, runs) not in self._demands:
            self._demands[cell, runs] = demand(self.config, cell, runs)
        return self._demands[cell, runs]

    def data_demand(self, dataset: str) -> Demand:
        """What the job that prepares a data set asks of a batch system."""
        return data_demand(self.config, dataset)

    @property
    def asks_for_gpus(self) -> bool:
        """Whether a job of any cell asks a batch system for a GPU."""
        return any(self.demand(cell, 1).gpus for cell in self.all_cells)

    def protocol(self, pair: Pair) -> Protocol:
        """A pair's own protocol, or the config's."""
        return pair.protocol or self.config.protocol

    def profile_params(self, cell: Cell) -> dict[str, Any]:
        """The two models to profile, and the training of each; inference is on the student's batch for both."""
        pair = self.pair(cell)
        models = {"teacher": pair.teacher.model_dump(mode="json"), "student": pair.student.model_dump(mode="json")}
        return {
            **cell._asdict(),
            "dataset_file": self.dataset_file(cell.dataset),
            "dataset_params": self.dataset_params(cell.dataset).model_dump(mode="json"),
            "models": models,
            "training": {
                "teacher": (pair.teacher_training or pair.training).model_dump(mode="json"),
                "student": pair.training.model_dump(mode="json"),
            },
            "energy": self.config.profile.energy if self.config.profile else None,
            **_files_of_models(pair.teacher, pair.student),
        }

    # equal tuning

    @cached_property
    def tuned_cells(self) -> list[Cell]:
        """The cells whose methods are tuned: those of the first library that is installed.

        What is chosen there is used with every library: otherwise PyG against DGL would compare hyper-parameters.
        """
        return [cell for cell in self.cells if cell.backend == self.cells[0].backend] if self.config.tune else []

    def tuned_cell(self, dataset: str, pair: str) -> Cell:
        """The cell that the methods of a pair are tuned in."""
        return next(cell for cell in self.tuned_cells if (cell.dataset, cell.pair) == (dataset, pair))

    def tuning_files(self) -> list[str]:
        """The chosen values of every data set, pair and method; none where nothing is tuned."""
        return [
            str(self.paths.tuning(cell.dataset, cell.pair, method))
            for cell in self.tuned_cells
            for method in self.methods_of(cell)
        ]

    def tuning_params(self, cell: Cell, method: str) -> dict[str, Any]:
        """What is searched, how, and everything that decides the trials' results."""
        assert self.config.tune is not None, "nothing is tuned"
        run = self._untuned_params(cell, method, self.config.tune.used_seeds)
        return {
            "run": {**run, "runs": str(self.paths.tuning_runs.root)},
            "space": space_of(self.variant(method), self.pair(cell), self.config.tune),
            "asked": self.config.tune.model_dump(),
        }

    def tuning_teacher_params(self, cell: Cell) -> dict[str, Any]:
        """As teacher_params, of the seeds that trials are run with, in a folder that no table is made of.

        These teachers have outputs and a validation score, no test score (see Job).
        """
        assert self.config.tune is not None, "nothing is tuned"
        seeds = self.config.tune.used_seeds
        return {**self.teacher_params(cell, 0), "seeds": seeds, "runs": str(self.paths.tuning_runs.root)}

    # inside

    def _run_params(self, cell: Cell, seeds: list[int], *models: Spec) -> dict[str, Any]:
        return {
            **cell._asdict(),
            "seeds": seeds,
            "run_seconds": self.config.execution.run_seconds,
            "dataset_file": self.dataset_file(cell.dataset),
            "dataset_params": self.dataset_params(cell.dataset).model_dump(mode="json"),
            **_files_of_models(*models),
        }


def _files_of_models(*models: Spec) -> dict[str, Any]:
    """The files of those that are plug-ins, by name, where there are any."""
    files = {spec.model: relative(declared.path) for spec in models if (declared := plugin_of(spec))}
    return {"model_files": files} if files else {}
