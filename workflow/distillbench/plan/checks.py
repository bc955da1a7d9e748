"""Whether a config can run: plug-ins, parameters, models and methods that fit together. Imports no torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from distillbench.config.config import Pair
from distillbench.config.specs import DGCNNSpec, needs_edges, plugin_of, predicts_graphs
from distillbench.config.variants import Variant, explain
from distillbench.params import ALL_TASKS, METRICS, MORE_METRICS, TEACHER, Setting, suggestion
from distillbench.plan.figures import taken_twice
from distillbench.plan.published import mismatch, read_claims
from distillbench.plan.sources import redraws
from distillbench.plugins import Declaration, PluginError

if TYPE_CHECKING:
    from distillbench.plan.grid import Grid


def problems_of(plan: "Grid") -> list[str]:
    """Everything that is wrong with a config, a sentence each, naming the key, the value and the nearest valid one."""
    checks = (_check_names, _check_splits, _check_pairs, _check_published, _check_structure)
    return [problem for check in checks for problem in check(plan)]


def _check_names(plan: "Grid") -> list[str]:
    """Plug-ins that do not exist, parameters they do not have."""
    problems = []
    for name in plan.config.datasets:
        try:
            problems += [f"datasets.{name}: {wrong}" for wrong in _words(plan.dataset_declaration(name))]
            plan.dataset_params(name)
        except PluginError as error:
            problems.append(f"datasets.{name}: {error}")
        except ValidationError as error:
            problems += [explain(f"datasets.{name}.params", each) for each in error.errors()]
    for name in plan.methods:
        try:
            problems += [problem for part in plan.variant(name).parts for problem in part.problems()]
        except PluginError as error:
            problems.append(f"methods.{name}: {error}")
    taken = taken_twice(plan.all_cells)
    problems += [
        f"datasets.{name}: the name is taken by a figure of all data sets or of another one; choose another, "
        f"such as '{name}-1: {{dataset: {plan.entry(name).dataset or name}, ...}}'"
        for name in plan.config.datasets
        if name in taken
    ]
    if TEACHER in plan.methods:
        problems.append(f"methods.{TEACHER}: the name is taken by the teacher itself; choose another")
    baseline = plan.config.compare.baseline
    if baseline not in plan.config.methods:
        problems.append(f"compare.baseline: unknown method {baseline!r}{suggestion(baseline, plan.methods)}")
    problems += _check_margins(plan)
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


def _check_margins(plan: "Grid") -> list[str]:
    """Margins of data sets and pairs that there are not."""
    problems, delta = [], plan.config.compare.delta
    for name, of_pairs in delta.items() if isinstance(delta, dict) else ():
        if name not in plan.config.datasets:
            problems.append(f"compare.delta: unknown data set {name!r}{suggestion(name, plan.config.datasets)}")
        elif isinstance(of_pairs, dict):
            known = plan.config.datasets[name].pairs
            problems += [
                f"compare.delta.{name}: unknown pair {pair!r}{suggestion(pair, known)}"
                for pair in of_pairs
                if pair not in known
            ]
    return problems


def _words(dataset: Declaration) -> list[str]:
    """What a data set's class states of itself and there is not."""
    problems = []
    known = {"task": sorted(ALL_TASKS), "setting": list(get_args(Setting))}
    if dataset.task in METRICS:
        known["metric"] = [METRICS[dataset.task], *MORE_METRICS]
    for key, choices in known.items():
        value = dataset.attributes.get(key) or choices[0]
        if value not in choices:
            problems.append(f"{key} = {value!r}: there is no such {key}{suggestion(value, choices)} ({dataset.path})")
    return problems


def _check_splits(plan: "Grid") -> list[str]:
    """Splits that are asked of a pair, which has its data set's, or of a data set that has no such ones."""
    problems = []
    for name, entry in plan.config.datasets.items():
        problems += [
            f"datasets.{name}.pairs.{pair_name}.protocol.splits: {pair.protocol.splits!r}: a seed's split is the same "
            f"for all pairs of a data set: datasets.{name}.params, or protocol of the config"
            for pair_name, pair in entry.pairs.items()
            if pair.protocol and pair.protocol.splits
        ]
        asked = plan.config.protocol.splits
        try:
            dataset = plan.dataset_declaration(name)
        except PluginError:
            continue  # reported by _check_names
        has = "random" if "draw_split" in dataset.defines else "published"
        if asked and asked != has and not redraws(dataset):
            problems.append(
                f"protocol.splits: {asked!r}: data set {name!r} has {has} ones only; leave the key out, and give "
                f"`params: {{splits: {asked}}}` to the data sets that have such a parameter"
            )
    return problems


def _check_published(plan: "Grid") -> list[str]:
    """Pairs to be set beside published results that there are none of."""
    problems = []
    for dataset, entry in plan.config.datasets.items():
        for name, pair in entry.pairs.items():
            p, file = pair.published, entry.dataset or dataset
            if p and (problem := mismatch(read_claims(), file, p.teacher, p.student, p.sources, p.methods)):
                problems.append(f"datasets.{dataset}.pairs.{name}.published: {problem}")
    return problems


def _check_structure(plan: "Grid") -> list[str]:
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


def _check_pairs(plan: "Grid") -> list[str]:
    """Models that do not fit a task, methods that do not apply to a pair that names them, or to no pair at all."""
    problems: list[str] = []
    applied: set[str] = set()
    settings: dict[str, str] = {}
    try:
        variants = {name: plan.variant(name) for name in plan.methods}
    except PluginError:
        return []  # reported by _check_names
    if any(part.problems() for variant in variants.values() for part in variant.parts):
        return []
    for name, entry in plan.config.datasets.items():
        try:
            dataset = plan.dataset_declaration(name)
        except PluginError:
            continue  # reported by _check_names
        for pair_name, pair in entry.pairs.items():
            where = f"datasets.{name}.pairs.{pair_name}"
            protocol = plan.protocol(pair)
            settings.setdefault(protocol.setting, where)
            if protocol.setting == "production" and dataset.setting != "transductive":
                problems.append(f"{where}: the production setting is for transductive data sets, this one is inductive")
            problems += _check_models(where, pair, dataset, _points(plan, name), plan.config.backends)
            for method, variant in variants.items():
                if pair.methods and method not in pair.methods:
                    continue
                reason = variant.unfit(dataset, pair, protocol)
                if reason is None:
                    applied.add(method)
                    problems += [f"{where}: {problem}" for problem in _check_layers(variant, pair)]
                elif pair.methods or method == plan.config.compare.baseline:
                    problems.append(f"{where}: method {method!r} {reason} ({_files(variant)})")
                else:
                    problems += _only_here(plan, where, method, variant, reason)
    if len(settings) > 1:
        both = " and ".join(settings.values())
        problems.append(f"protocol.setting: {both} differ, and the two settings never share a table: use two configs")
    return list(dict.fromkeys(problems))  # a pair's layers are wrong for all methods alike


def _only_here(plan: "Grid", where: str, method: str, variant: Variant, reason: str) -> list[str]:
    """A method that applies to none of the pairs is a mistake; one that applies to some is left out of the others."""
    for cell in plan.all_cells:
        chosen = plan.pair(cell).methods
        if (not chosen or method in chosen) and not plan.unfit(cell, method):
            return []
    return [f"{where}: method {method!r} {reason} ({_files(variant)})"]


def _files(variant: Variant) -> str:
    return ", ".join(str(part.declared.path) for part in variant.parts)


def _points(plan: "Grid", dataset: str) -> int | None:
    """Points of a cloud, where a data set has such a parameter."""
    try:
        points = getattr(plan.dataset_params(dataset), "points", None)
    except ValidationError:
        return None  # reported by _check_names
    return points if isinstance(points, int) else None


def _check_layers(variant: Variant, pair: Pair) -> list[str]:
    problems = []
    for part in variant.parts:
        where = f"{part.place}.layers" if "layers" in part.given else "layers"
        for roles in getattr(part.params(pair), "layers", None) or ():
            models = [("student", roles[0], pair.student), ("teacher", roles[1], pair.teacher)]
            if "teachers" in variant.requires:
                models += [(f"teacher {name!r}", roles[1], spec) for name, spec in pair.teachers.items()]
            for role, index, spec in models:
                depth = len(spec.hidden_dims)
                if not -depth <= index < depth:
                    problems.append(f"{where}: {role} layer {index}: the {role} has {depth} hidden layers")
    return problems


EDGELESS = "dgcnn, mlp or a plug-in whose edges are 'drawn' or 'none'"


def _check_plugin(what: str, model: Declaration, task: str, backends: Sequence[str]) -> list[str]:
    problems = []
    if task not in model.tasks:
        problems.append(f"{what} is for {', '.join(sorted(model.tasks))}, the task is {task} ({model.path})")
    libraries = model.attributes.get("libraries", backends)
    if others := [backend for backend in backends if backend not in libraries]:
        own = ", ".join(sorted(libraries))
        problems.append(f"{what} runs with {own}, not with {', '.join(others)}: backends: [{own}] ({model.path})")
    return problems


def _check_models(
    where: str, pair: Pair, dataset: Declaration, points: int | None, backends: Sequence[str]
) -> list[str]:
    problems = []
    dynamic = dataset.attributes.get("dynamic", False)
    further = [(f"teachers.{name}", spec) for name, spec in pair.teachers.items()]
    for role, spec in (("teacher", pair.teacher), ("student", pair.student), *further):
        graph_level = dataset.task == "graph-multiclass"
        if declared := plugin_of(spec):
            problems += _check_plugin(f"{where}.{role}: {spec.model!r}", declared, dataset.task, backends)
            if dataset.task not in declared.tasks:
                continue
        if graph_level and not predicts_graphs(spec):
            problems.append(f"{where}.{role}: {spec.model!r} predicts nodes, the task is {dataset.task}: set readout")
        if not graph_level and predicts_graphs(spec):
            problems.append(f"{where}.{role}: {spec.model!r} predicts graphs, the task is {dataset.task}")
        if dynamic and needs_edges(spec):
            problems.append(f"{where}.{role}: {spec.model!r} needs edges, and the data set has none: use {EDGELESS}")
        if isinstance(spec, DGCNNSpec) and points is not None and spec.k > points:
            problems.append(f"{where}.{role}.k: {spec.k} neighbours asked for, but a cloud has {points} points")
        training = (pair.teacher_training or pair.training) if role != "student" else pair.training
        if isinstance(spec, DGCNNSpec) and training.batch_size < 2:
            problems.append(f"{where}.{role}: dgcnn has batch norms over graphs, which need a batch_size of 2 or more")
    return problems
