"""Runtime profiles: what a teacher and a student cost, measured with all cores and nothing beside them.

Inference is measured in evaluation mode without autograd, on one batch as it is used (the whole graph of a transductive
data set, ``batch_size`` graphs of an inductive one) and on one graph. Everything is measured in two passes, the second
over both models after the first over both, each model each time in a fresh process. A figure whose two medians disagree
by more than a tenth is named: something else ran, or the clock of the processor changed, and it is not to be trusted.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch._dynamo  # an optimiser imports it, which takes 2 s: here once, rather than in every pass

from distillbench.config.config import Training
from distillbench.config.specs import read_spec
from distillbench.data.graph_data import read_data
from distillbench.data.neighbours import static_neighbours
from distillbench.durations import spending
from distillbench.models.backends import BackendUnavailableError, get_backend
from distillbench.models.gnn import GNN, initialise
from distillbench.paths import Paths
from distillbench.plugins import load
from distillbench.profiling.measure import Pass, epoch_seconds, limited, measure
from distillbench.profiling.peak_memory import in_fresh_process
from distillbench.profiling.trust import BUSY_PERCENT, DISAGREEMENT, FIGURES_OF, RESOLUTION
from distillbench.record import environment, utc_now, write_sealed
from distillbench.training.allocator import keep_freed_memory
from distillbench.training.fit import without_test
from distillbench.training.inputs import Inputs

log = logging.getLogger("distillbench")

PASSES = 2


def profile_pair(results: str, params: dict[str, Any], threads: int, outputs: dict[str, str]) -> str:
    """Profile the teacher and the student of a pair; write one JSON file each. Returns a line that sums it up.

    The process it is called in must not have computed anything (see ``in_fresh_process``).
    """
    identity = {name: params[name] for name in ("dataset", "backend", "pair")}
    place = "/".join(identity.values())
    try:
        get_backend(params["backend"])  # imported once, for all passes
    except BackendUnavailableError as error:
        for role, spec in params["models"].items():
            skipped = identity | {"role": role, "model": spec, "skipped": str(error)}
            write_sealed(Path(outputs[role]), skipped)
        return f"{place}: skipped: {error}"
    with spending("pause"):
        busy = psutil.cpu_percent(interval=0.5)
    if busy > BUSY_PERCENT:
        log.warning("other processes use %.0f%% of this machine: the profile will show them, too", busy)
    passes: dict[str, list[Pass]] = {role: [] for role in params["models"]}
    for _ in range(PASSES):
        for role, found in passes.items():
            found.append(in_fresh_process(_pass, results, params, threads, role))
    latencies = []
    for role, spec in params["models"].items():
        figures = combined(passes[role]) | {"busy_before_percent": busy, "measured": utc_now()}
        write_sealed(Path(outputs[role]), identity | {"role": role, "model": spec} | figures)
        if figures["mistrusted"]:
            log.warning("%s: the two passes disagree about %s", role, ", ".join(figures["mistrusted"]))
        latency = figures.get("latency_ms")
        latencies.append(f"{role} {latency:.2f} ms" if latency is not None else f"{role} {figures['inference_status']}")
        log.info("%s: %s", role, figures)
    return f"{place}: {', '.join(latencies)} a batch"


def combined(passes: Sequence[Pass]) -> dict[str, Any]:
    """The figures of several passes over one model, as ``profile_table.COLUMNS`` describes them.

    A figure is the median over the values of all passes, a latency has its quartiles beside it. A status is the worst
    of the passes', and beside an error there is none of its figures that a pass lacks. repeats: by figure, the median
    of each pass that has it. repeat_difference: of all figures, the largest difference between these, as a fraction of
    their mean, where it is above RESOLUTION. mistrusted: the figures where it is above DISAGREEMENT, and those that a
    pass lacks.
    """
    figures: dict[str, Any] = {name: value for found in reversed(passes) for name, value in found.facts.items()}
    without: set[str] = set()
    for what, names in FIGURES_OF.items():
        if any(f"{what}_status" in found.facts for found in passes):
            worst = max(passes, key=lambda found: _severity(found.facts.get(f"{what}_status", "ok")))
            for part in ("status", "difference"):
                if f"{what}_{part}" in worst.facts:
                    figures[f"{what}_{part}"] = worst.facts[f"{what}_{part}"]
            if _severity(figures[f"{what}_status"]) == 2:
                without.update(names)
    units, one_graph = figures.pop("throughput_units"), figures.pop("one_graph")
    repeats: dict[str, list[float]] = {}
    lacking = []
    for name in dict.fromkeys(name for found in passes for name in found.samples):
        values = [found.samples[name] for found in passes if np.isfinite(found.samples.get(name) or [np.nan]).all()]
        if len(values) < len(passes) and name in without:
            continue
        if not values:
            figures[name] = None
            continue
        low, median, high = np.quantile(np.concatenate(values), [0.25, 0.5, 0.75]).tolist()
        figures[name] = median
        if name.endswith("latency_ms"):
            figures[name.replace("latency_ms", "latency_q25_ms")] = low
            figures[name.replace("latency_ms", "latency_q75_ms")] = high
        repeats[name] = [float(np.median(each)) for each in values]
        if len(values) < len(passes):
            lacking.append(name)
    if "latency_ms" in figures:
        if one_graph:
            figures |= {f"graph_{name}": figures[name] for name in ("latency_ms", "latency_q25_ms", "latency_q75_ms")}
        figures["throughput_per_second"] = units / figures["latency_ms"] * 1000
    differences = {name: _difference(medians, RESOLUTION.get(name, 0.0)) for name, medians in repeats.items()}
    mistrusted = [name for name in repeats if differences[name] > DISAGREEMENT or name in lacking]
    return figures | {
        "repeats": repeats,
        "repeat_difference": max(differences.values(), default=0.0),
        "mistrusted": mistrusted,
    }


def _severity(status: str) -> int:
    """0: ok, 1: for its own size only, 2: an error."""
    return 0 if status == "ok" else 1 if status.startswith("for ") else 2


def _difference(medians: Sequence[float], resolution: float) -> float:
    difference = max(medians) - min(medians)
    return difference / float(np.mean(medians)) if difference > resolution else 0.0


def _pass(results: str, params: dict[str, Any], threads: int, role: str) -> Pass:
    """One pass over one model, from the data set on disk to its figures."""
    torch.set_num_threads(threads)
    backend = get_backend(params["backend"])
    device = backend.device()
    plugin = load("dataset", Path(params["dataset_file"]))
    data = read_data(Paths(results).data(params["dataset"]))
    dataset = plugin(plugin.Params(**params["dataset_params"]))
    data, split = without_test(data, dataset.split(data, 0))
    training, of_student = (Training(**params["training"][name]) for name in (role, "student"))
    spec = read_spec(params["models"][role], params.get("model_files", {}))
    model = GNN(spec, backend, data.x.shape[1], data.num_classes)
    initialise(model, 0, role)
    # one batch for both models; no neighbours known before: inference has to search
    inputs = Inputs(data, backend, device, of_student.batch_size)
    deploy, energy = role == "student", params.get("energy")
    found = measure(model.to(device), inputs, split, deploy=deploy, energy=energy)
    keep_freed_memory()  # as every run does, and from here on alone: who deploys a model has the allocator as it is
    known = static_neighbours(data)
    for_training = Inputs(data, backend, device, training.batch_size, dataset.augment, neighbours=known)
    with limited(found.facts, "training"):
        found.samples["train_seconds_per_epoch"] = epoch_seconds(model, for_training, split, training)
    found.facts["environment"] = environment(params["backend"], str(device), threads)
    return found
