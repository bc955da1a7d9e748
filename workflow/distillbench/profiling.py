"""Runtime profiles: what a teacher and a student cost, measured with all cores and nothing beside them.

Inference is measured in evaluation mode without autograd, on one batch as it is used: the whole graph of a transductive
data set, ``batch_size`` graphs of an inductive one.
"""

import contextlib
import ctypes
import gc
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from distillbench.backends import BackendUnavailableError, get_backend
from distillbench.config import Training
from distillbench.data import Split, read_data
from distillbench.inputs import Inputs
from distillbench.method import Dims, TaskLossOnly
from distillbench.models import GNN, Output, count_parameters, initialise
from distillbench.params import Parameters
from distillbench.paths import Paths
from distillbench.plugins import load
from distillbench.record import environment, utc_now, write_atomically
from distillbench.specs import GATSpec, ModelSpec, predicts_graphs, uses_edges
from distillbench.train import fit, without_test

log = logging.getLogger("distillbench")

EPOCHS = 4  # trained for the time of one: the first is warm-up
MIN_RUN_SECONDS = 0.5  # of the latency measurement
BUSY_PERCENT = 20.0  # of all cores used by others: past it a profile is not to be trusted


def profile_pair(results: str, params: dict[str, Any], threads: int, outputs: dict[str, str]) -> str:
    """Profile the teacher and the student of a pair; write one JSON file each. Returns a line that sums it up."""
    identity = {name: params[name] for name in ("dataset", "backend", "pair")}
    try:
        backend = get_backend(params["backend"])
    except BackendUnavailableError as error:
        for role, spec in params["models"].items():
            skipped = identity | {"role": role, "model": spec, "skipped": str(error)}
            write_atomically(Path(outputs[role]), json.dumps(skipped, indent=1) + "\n")
        return f"{params['dataset']}/{params['backend']}/{params['pair']}: skipped: {error}"
    torch.set_num_threads(threads)
    busy = psutil.cpu_percent(interval=0.5)
    if busy > BUSY_PERCENT:
        log.warning("other processes use %.0f%% of this machine: the profile will show them, too", busy)
    device = backend.device()
    data = read_data(Paths(results).data(params["dataset"]))
    plugin = load("dataset", Path(params["dataset_file"]))
    split = plugin(plugin.Params(**params["dataset_params"])).split(data, 0)
    data, split = without_test(data, split)
    training = Training(**params["training"])
    latencies = []
    for role, spec in params["models"].items():
        model = GNN(TypeAdapter(ModelSpec).validate_python(spec), backend, data.x.shape[1], data.num_classes)
        initialise(model, 0, role)
        inputs = Inputs(data, backend, device, training.batch_size)
        figures = measure(model.to(device), inputs, split, training)
        figures |= {"busy_before_percent": busy, "measured": utc_now()}
        figures |= {"environment": environment(params["backend"], str(device), threads)}
        profile = identity | {"role": role, "model": spec} | figures
        write_atomically(Path(outputs[role]), json.dumps(profile, indent=1) + "\n")
        latencies.append(f"{role} {figures['latency_ms']:.2f} ms")
        log.info("%s: %s", role, figures)
    return f"{params['dataset']}/{params['backend']}/{params['pair']}: {', '.join(latencies)} a batch"


def measure(model: GNN, inputs: Inputs, split: Split, training: Training) -> dict[str, Any]:
    """All figures of one model.

    Returns:
        parameters; weights_bytes; reads_graph: false for a model that was measured without one; batch_nodes,
        batch_graphs, batch_edges: of the batch measured; dense_flops: of matrix products in one forward pass (multiply
        and add counted apart); edge_flops: see ``edge_flops``; latency_ms with its quartiles latency_q25_ms and
        latency_q75_ms; throughput_per_second: nodes, or graphs for graph-level tasks; peak_memory_mb: more than before
        the forward pass; train_seconds_per_epoch: training and validation, median.
    """
    batch = inputs.ordered(split.train)[0]
    # an MLP's cost has to be that of a model without a graph: it gets none, and would fail if it touched it
    graph: Any = batch.graph if uses_edges(model.spec) or predicts_graphs(model.spec) else None
    model.eval()

    @torch.inference_mode()
    def forward() -> Output:
        out: Output = model(graph, batch.x)
        return out

    memory = _peak_memory_mb(forward, inputs.device)  # first: the allocator keeps what later calls would need
    counter = FlopCounterMode(display=False)
    with counter:
        out = forward()
    timing = Timer("forward()", globals={"forward": forward}, num_threads=torch.get_num_threads())
    times = torch.tensor(timing.blocked_autorange(min_run_time=MIN_RUN_SECONDS).times, dtype=torch.float64) * 1000
    low, median, high = times.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    units = len(out.logits)
    return {
        "parameters": count_parameters(model),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "reads_graph": graph is not None,
        "batch_nodes": batch.graph.num_nodes,
        "batch_graphs": batch.graph.num_graphs,
        "batch_edges": max((edges.shape[1] for edges in out.edge_index), default=0),
        "dense_flops": counter.get_total_flops(),
        "edge_flops": edge_flops(model, out),
        "latency_ms": median,
        "latency_q25_ms": low,
        "latency_q75_ms": high,
        "throughput_per_second": units / median * 1000,
        "throughput_of": "graphs" if inputs.data.task.level == "graph" else "nodes",
        "peak_memory_mb": memory,
        "train_seconds_per_epoch": _epoch_seconds(model, inputs, split, training),
    }


def edge_flops(model: GNN, out: Output) -> int:
    """Operations of message passing in one forward pass, by formula: sum over layers of c · edges · width.

    c = 2 where messages are weighted and summed (GAT, GCN), 1 where they are only summed, averaged or maximised (SAGE,
    GIN, EdgeConv). Scores and softmax of an attention, a few operations per edge and head, are left out.
    """
    spec = model.spec
    widths = list(spec.hidden_dims)
    edges = [used.shape[1] for used in out.edge_index]
    if spec.model != "dgcnn" and not getattr(spec, "readout", None):  # the output layer passes messages too
        heads = spec.heads_per_layer[-1] if isinstance(spec, GATSpec) else 1
        widths.append(out.logits.shape[1] * heads)
        edges.append(edges[-1])
    weight = 2 if spec.model in ("gat", "gcn") else 1
    return weight * sum(count * width for count, width in zip(edges, widths, strict=True))


def _epoch_seconds(model: nn.Module, inputs: Inputs, split: Split, training: Training) -> float:
    method = TaskLossOnly(Parameters(), Dims((), 0), Dims((), 0))
    result = fit(model, method, inputs, split, training.model_copy(update={"epochs": EPOCHS, "patience": None}), seed=0)
    ends = torch.tensor([row["seconds"] for row in result.history], dtype=torch.float64)
    return ends.diff().median().item()


def _peak_memory_mb(run: Callable[[], Any], device: torch.device) -> float:
    """Memory that ``run`` needs at its peak, in MB, beyond what is held before; CUDA's own counter on a GPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return float(torch.cuda.max_memory_allocated(device) - before) / 1e6
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what is free, so that using it again is seen
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # only Linux can reset the peak of a process, and not in every container
        return float("nan")
    before = _status_kb("VmRSS")
    run()
    return max(0, _status_kb("VmHWM") - before) * 1024 / 1e6


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
