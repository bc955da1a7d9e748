"""Whether a config can run: plug-ins, parameters, models and methods that fit together. Imports no torch."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distillbench.claims import mismatch, read_claims
from distillbench.config import Pair
from distillbench.params import TEACHER, suggestion
from distillbench.plugins import Declaration, PluginError
from distillbench.specs import DGCNNSpec, predicts_graphs, uses_edges

if TYPE_CHECKING:
    from distillbench.plan import Plan


def problems_of(plan: "Plan") -> list[str]:
    """Everything that is wrong with a config, a sentence each, naming the key, the value and the nearest valid one."""
    return [*_check_names(plan), *_check_pairs(plan), *_check_published(plan), *_check_structure(plan)]


def _check_names(plan: "Plan") -> list[str]:
    """Plug-ins that do not exist, parameters they do not have."""
    problems = []
    for section, names, read in (
        ("datasets", plan.config.datasets, plan.dataset_params),
        ("methods", plan.config.methods, plan.method_params),
    ):
        inside = ".params" if section == "datasets" else ""
        for name in names:
            try:
                read(name)
            except PluginError as error:
                problems.append(f"{section}.{name}: {error}")
            except ValidationError as error:
                problems += [_explain_params(f"{section}.{name}{inside}", e) for e in error.errors()]
    if TEACHER in plan.methods:
        problems.append(f"methods.{TEACHER}: the name is taken by the teacher itself; choose another")
    baseline = plan.config.compare.baseline
    if baseline not in plan.config.methods:
        problems.append(f"compare.baseline: unknown method {baseline!r}{suggestion(baseline, plan.methods)}")
    for dataset, entry in plan.config.datasets.items():
        for name, pair in entry.pairs.items():
            where = f"datasets.{dataset}.pairs.{name}"
            mapped = pair.published.methods if pair.published else {}
            for key, methods in (("methods", pair.methods or ()), ("published.methods", mapped)):
                unknown = [method for method in methods if method not in plan.config.methods]
                problems += [f"{where}.{key}: unknown method {m!r}{suggestion(m, plan.methods)}" for m in unknown]
            if pair.methods and baseline not in pair.methods:
                problems.append(f"{where}.methods: the baseline {baseline!r} is not among them")
    return problems


def _check_published(plan: "Plan") -> list[str]:
    """Pairs to be set beside published results that there are none of."""
    problems = []
    for dataset, entry in plan.config.datasets.items():
        for name, pair in entry.pairs.items():
            p, file = pair.published, entry.dataset or dataset
            if p and (problem := mismatch(read_claims(), file, p.teacher, p.student, p.sources, p.methods)):
                problems.append(f"datasets.{dataset}.pairs.{name}.published: {problem}")
    return problems


def _check_structure(plan: "Plan") -> list[str]:
    """What the figures of the feature space ask for and there is not."""
    drawn, seeds = plan.config.structure, plan.config.seeds
    if "structure" not in plan.config.model_fields_set:
        return []
    problems = []
    if drawn.seed >= seeds:
        problems.append(f"structure.seed: {drawn.seed}: there are {seeds} seeds, the last is {seeds - 1}")
    if problems or drawn.layers is None:
        return problems
    for cell in plan.structure_cells():
        pair = plan.pair(cell)
        for role, index in drawn.layers._asdict().items():
            depth = len(getattr(pair, role).hidden_dims)
            if not -depth <= index < depth:
                where = f"the {role} of datasets.{cell.dataset}.pairs.{cell.pair}"
                problems.append(f"structure.layers: {role} layer {index}: {where} has {depth} hidden layers")
    return list(dict.fromkeys(problems))


def _check_pairs(plan: "Plan") -> list[str]:
    """Models that do not fit a task, methods that do not apply to a task or a pair."""
    problems = []
    for name, entry in plan.config.datasets.items():
        try:
            dataset = plan.dataset_declaration(name)
            methods = {method: plan.method_declaration(method) for method in plan.methods}
        except PluginError:
            continue  # reported by _check_names
        for pair_name, pair in entry.pairs.items():
            where = f"datasets.{name}.pairs.{pair_name}"
            problems += _check_models(where, pair, dataset, _points(plan, name))
            for method, declared in methods.items():
                if pair.methods and method not in pair.methods:
                    continue
                problems += [f"{where}: {problem}" for problem in _check_method(plan, method, declared, dataset, pair)]
    return list(dict.fromkeys(problems))  # a pair's layers are wrong for all methods alike


def _points(plan: "Plan", dataset: str) -> int | None:
    """Points of a cloud, where a data set has such a parameter."""
    try:
        points = getattr(plan.dataset_params(dataset), "points", None)
    except ValidationError:
        return None  # reported by _check_names
    return points if isinstance(points, int) else None


def _check_method(plan: "Plan", name: str, method: Declaration, dataset: Declaration, pair: Pair) -> list[str]:
    if dataset.task not in method.tasks:
        return [
            f"method {name!r} does not apply to {dataset.task} tasks "
            f"(it applies to: {', '.join(sorted(method.tasks))}; {method.path})"
        ]
    problems = []
    if "edges" in method.requires and not uses_edges(pair.teacher):
        problems.append(f"method {name!r} needs the teacher's edges, and its teacher is an MLP")
    try:
        params = plan.method_params(name, pair)
    except ValidationError:
        return problems  # reported by _check_names
    where = f"methods.{name}.layers" if "layers" in plan.config.methods[name] else "layers"
    for roles in getattr(params, "layers", ()):
        for role, index, spec in (("student", roles[0], pair.student), ("teacher", roles[1], pair.teacher)):
            depth = len(spec.hidden_dims)
            if not -depth <= index < depth:
                problems.append(f"{where}: {role} layer {index}: the {role} has {depth} hidden layers")
    return problems


def _check_models(where: str, pair: Pair, dataset: Declaration, points: int | None) -> list[str]:
    problems = []
    dynamic = dataset.attributes.get("dynamic", False)
    for role, spec in (("teacher", pair.teacher), ("student", pair.student)):
        graph_level = dataset.task == "graph-multiclass"
        if graph_level and not predicts_graphs(spec):
            problems.append(f"{where}.{role}: {spec.model!r} predicts nodes, the task is {dataset.task}: set readout")
        if not graph_level and predicts_graphs(spec):
            problems.append(f"{where}.{role}: {spec.model!r} predicts graphs, the task is {dataset.task}")
        if dynamic and spec.model not in ("dgcnn", "mlp"):
            problems.append(f"{where}.{role}: {spec.model!r} needs edges, and the data set has none: use dgcnn or mlp")
        if isinstance(spec, DGCNNSpec) and points is not None and spec.k > points:
            problems.append(f"{where}.{role}.k: {spec.k} neighbours asked for, but a cloud has {points} points")
        training = (pair.teacher_training or pair.training) if role == TEACHER else pair.training
        if isinstance(spec, DGCNNSpec) and training.batch_size < 2:
            problems.append(f"{where}.{role}: dgcnn has batch norms over graphs, which need a batch_size of 2 or more")
    return problems


def _explain_params(where: str, error: Any) -> str:
    place = ".".join([where, *map(str, error["loc"])])
    message = error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict) else f"{error['input']!r}: "
    return f"{place}: {given}{message}"
