"""Runtime profiles: what a teacher and a student cost, measured with all cores and nothing beside them.

Inference is measured in evaluation mode without autograd, on one batch as it is used (the whole graph of a transductive
data set, ``batch_size`` graphs of an inductive one) and on one graph. Everything is measured in two passes, the second
over both models after the first over both, each model each time in a fresh process. A figure whose two medians disagree
by more than a tenth is named: something else ran, or the clock of the processor changed, and it is not to be trusted.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch._dynamo  # an optimiser imports it, which takes 2 s: here once, rather than in every pass
from pydantic import TypeAdapter

from distillbench.allocator import keep_freed_memory
from distillbench.backends import BackendUnavailableError, get_backend
from distillbench.config import Training
from distillbench.data import read_data
from distillbench.inputs import Inputs
from distillbench.measuring import Pass, epoch_seconds, measure
from distillbench.models import GNN, initialise
from distillbench.neighbours import static_neighbours
from distillbench.paths import Paths
from distillbench.peak_memory import in_fresh_process
from distillbench.plugins import load
from distillbench.profile_table import DISAGREEMENT
from distillbench.record import environment, utc_now, write_atomically
from distillbench.specs import ModelSpec
from distillbench.train import without_test

log = logging.getLogger("distillbench")

PASSES = 2
# what two passes may differ by without a meaning: Linux counts resident pages in batches per processor, and a run's
# history has tenths of milliseconds
RESOLUTION = {"peak_memory_mb": 0.3, "train_seconds_per_epoch": 0.0002}
BUSY_PERCENT = 20.0  # of all cores used by others: past it a profile is not to be trusted


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
            write_atomically(Path(outputs[role]), json.dumps(skipped, indent=1) + "\n")
        return f"{place}: skipped: {error}"
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
        write_atomically(
            Path(outputs[role]), json.dumps(identity | {"role": role, "model": spec} | figures, indent=1) + "\n"
        )
        if figures["mistrusted"]:
            log.warning("%s: the two passes disagree about %s", role, ", ".join(figures["mistrusted"]))
        latencies.append(f"{role} {figures['latency_ms']:.2f} ms")
        log.info("%s: %s", role, figures)
    return f"{place}: {', '.join(latencies)} a batch"


def combined(passes: Sequence[Pass]) -> dict[str, Any]:
    """The figures of several passes over one model, as ``profile_table.COLUMNS`` describes them.

    A figure is the median over the values of all passes, a latency has its quartiles beside it. repeats: by figure, the
    median of each pass. repeat_difference: of all figures, the largest difference between these, as a fraction of their
    mean, where it is above RESOLUTION. mistrusted: the figures where it is above DISAGREEMENT.
    """
    figures: dict[str, Any] = dict(passes[0].facts)
    units, one_graph = figures.pop("throughput_units"), figures.pop("one_graph")
    repeats: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for found in passes for name in found.samples):
        values = [found.samples[name] for found in passes if found.samples.get(name)]
        low, median, high = np.quantile(np.concatenate(values), [0.25, 0.5, 0.75]).tolist()
        figures[name] = median if np.isfinite(median) else None
        if name.endswith("latency_ms"):
            figures[name.replace("latency_ms", "latency_q25_ms")] = low
            figures[name.replace("latency_ms", "latency_q75_ms")] = high
        if np.isfinite(median):
            repeats[name] = [float(np.median(each)) for each in values]
    if one_graph:
        figures |= {f"graph_{name}": figures[name] for name in ("latency_ms", "latency_q25_ms", "latency_q75_ms")}
    figures["throughput_per_second"] = units / figures["latency_ms"] * 1000
    differences = {name: _difference(medians, RESOLUTION.get(name, 0.0)) for name, medians in repeats.items()}
    mistrusted = [name for name, difference in differences.items() if difference > DISAGREEMENT]
    return figures | {
        "repeats": repeats,
        "repeat_difference": max(differences.values()),
        "mistrusted": mistrusted,
    }


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
    data, split = without_test(data, plugin(plugin.Params(**params["dataset_params"])).split(data, 0))
    training = Training(**params["training"])
    spec = TypeAdapter(ModelSpec).validate_python(params["models"][role])
    model = GNN(spec, backend, data.x.shape[1], data.num_classes)
    initialise(model, 0, role)
    inputs = Inputs(data, backend, device, training.batch_size)  # no neighbours known before: inference has to search
    deploy, energy = role == "student", params.get("energy")
    found = measure(model.to(device), inputs, split, deploy=deploy, energy=energy)
    keep_freed_memory()  # as every run does, and from here on alone: who deploys a model has the allocator as it is
    for_training = Inputs(data, backend, device, training.batch_size, neighbours=static_neighbours(data))
    seconds = {"train_seconds_per_epoch": epoch_seconds(model, for_training, split, training)}
    machine = {"environment": environment(params["backend"], str(device), threads)}
    return Pass(found.facts | machine, found.samples | seconds)
