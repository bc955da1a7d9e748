"""Which jobs are asked for, as the DAG's rules would start them: what jobs/run.py does. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillbench.config.config import ConfigError
from distillbench.jobs.train import train
from distillbench.jobs.tune import tune
from distillbench.jobs.workers import Task
from distillbench.params import TEACHER, suggestion
from distillbench.paths import Cell
from distillbench.plan.plan import Plan


@dataclass(frozen=True)
class Options:
    """What of a config is trained. methods: may have ``teacher``, the teachers alone. epochs: of a trial, at most."""

    config: Path
    settings: tuple[str, ...] = ()  # KEY=VALUE
    datasets: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: Sequence[int] | None = None
    processes: int = 1
    results: Path | None = None
    epochs: int | None = None
    publish: str | None = None
    list: bool = False


def select(plan: Plan, options: Options) -> list[Task]:
    """The jobs of the selected cells, methods and seeds: data sets, tuning, teachers (also those needed), students.

    Tuning is as the config says, whatever is selected of libraries and seeds.

    Raises:
        ConfigError: a name is unknown, a library is missing or nothing is selected.
    """
    datasets = _chosen("dataset", options.datasets, plan.config.datasets)
    pairs = _chosen("pair", options.pairs, sorted({cell.pair for cell in plan.all_cells}))
    backends = _chosen("backend", options.backends, plan.config.backends)
    methods = _chosen("method", options.methods, (TEACHER, *plan.methods))
    seeds = _chosen("seeds", options.seeds, range(plan.config.seeds))
    for backend in set(options.backends or ()) & set(plan.missing):
        raise ConfigError(f"--backend {backend}: {plan.missing[backend]}")
    cells = [c for c in plan.cells if c.dataset in datasets and c.backend in backends and c.pair in pairs]
    teachers: dict[str, Task] = {}
    tuning: dict[str, Task] = {}
    students: list[Task] = []
    for cell in cells:
        for shard in plan.shards:
            some = [seed for seed in plan.seeds(shard) if seed in seeds]
            if not some:
                continue
            if TEACHER in methods:
                teacher = _teacher(plan, cell, shard, some)
                teachers[teacher.name] = teacher
            for method in plan.methods_of(cell):
                if method not in methods:
                    continue
                params = {**plan.student_params(cell, method, shard), "seeds": some}
                needed = [_teacher(plan, each, shard, some) for each in plan.teachers_of(cell, method)]
                teachers |= {teacher.name: teacher for teacher in needed}
                needs = [each.name for each in needed]
                if plan.config.tune:
                    *taught, tuned = _tuning(plan, cell, method)
                    tuning |= {task.name: task for task in (*taught, tuned)}
                    needs.append(tuned.name)
                sources = plan.student_sources(cell, method)
                students.append(_training(plan, cell, method, shard, params, sources, needs))
    if not teachers and not students:
        reasons = "; ".join(plan.missing.values()) or "the pairs named do not have the methods named"
        raise ConfigError(f"nothing is selected: {reasons}")
    used = {task.arguments["params"]["dataset"]: None for task in (*teachers.values(), *students)}
    return [*[_data(plan, dataset) for dataset in used], *tuning.values(), *teachers.values(), *students]


def _chosen(option: str, asked: Sequence[Any] | None, known: Any) -> Any:
    for name in asked or ():
        if name not in known:
            raise ConfigError(f"--{option}: unknown {name!r}{suggestion(name, map(str, known))}")
    return asked or known


def _data(plan: Plan, dataset: str) -> Task:
    plugin, results = plan.dataset_file(dataset), str(plan.paths.root)
    arguments = {"results": results, "file": plugin, **plan.data_params(dataset), "sources": plan.data_sources(dataset)}
    name = _data_name(dataset)
    return Task(name, arguments, (), plan.paths.data(dataset) / "data.json", _log(plan, name))


def _teacher(plan: Plan, cell: Cell, shard: int, seeds: list[int]) -> Task:
    params = {**plan.teacher_params(cell, shard), "seeds": seeds}
    return _training(plan, cell, TEACHER, shard, params, plan.teacher_sources(cell))


def _training(
    plan: Plan,
    cell: Cell,
    method: str,
    shard: int,
    params: dict[str, Any],
    sources: list[str],
    needs: Sequence[str] = (),
) -> Task:
    """A shard's job, as the rules of the DAG would start it."""
    arguments = {
        "results": str(plan.paths.root),
        "shard": shard,
        "params": params,
        "sources": sources,
        "execution": plan.config.execution.model_dump(),
        "planned_runs": plan.runs,
    }
    name = "/".join((*cell, method, str(shard)))
    file = plan.paths.shard(cell, method, shard)
    return Task(name, arguments, (_data_name(cell.dataset), *needs), file, _log(plan, name), tuple(params["seeds"]))


def _tuning(plan: Plan, cell: Cell, method: str) -> list[Task]:
    """The teachers of the trials of a method, then the trials."""
    cell = plan.tuned_cell(cell.dataset, cell.pair)
    common = {"results": str(plan.paths.root), "execution": plan.config.execution.model_dump()}
    teachers = []
    for each in plan.teachers_of(cell, method):
        params, sources = plan.tuning_teacher_params(each), plan.teacher_sources(each)
        arguments = {**common, "shard": 0, "params": params, "sources": sources, "planned_runs": plan.runs}
        file, name = plan.paths.tuning_runs.shard(each, TEACHER, 0), _tuning_name(*each, TEACHER)
        teachers.append(Task(name, arguments, (_data_name(cell.dataset),), file, _log(plan, name), does=train))
    file, name = plan.paths.tuning(cell.dataset, cell.pair, method), _tuning_name(cell.dataset, cell.pair, method)
    sources = plan.tuning_sources(cell, method)
    arguments = {**common, **plan.tuning_params(cell, method), "sources": sources, "file": str(file)}
    needs = (_data_name(cell.dataset), *[teacher.name for teacher in teachers])
    return [*teachers, Task(name, arguments, needs, file, _log(plan, name), does=tune)]


def all_names(plan: Plan) -> Iterator[str]:
    """The names of all jobs of a config."""
    yield from map(_data_name, plan.config.datasets)
    for cell in plan.cells:
        for method in (TEACHER, *plan.methods_of(cell)):
            yield from ("/".join((*cell, method, str(shard))) for shard in plan.shards)
    for cell in plan.further_teachers():
        yield from ("/".join((*cell, TEACHER, str(shard))) for shard in plan.shards)
    for cell in plan.tuned_cells:
        for method in plan.methods_of(cell):
            yield from (task.name for task in _tuning(plan, cell, method))


def _data_name(dataset: str) -> str:
    return f"data/{dataset}"


def _tuning_name(*parts: str) -> str:
    return "/".join(("tuning", *parts))


def _log(plan: Plan, name: str) -> Path:
    return plan.paths.root / "logs/run" / f"{name}.log"
