"""The figures of one model, measured once, in a process that does nothing else (see profiling)."""

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from distillbench.config.config import Training
from distillbench.config.specs import predicts_graphs, uses_edges
from distillbench.data.graph_data import Split
from distillbench.distillation.method import Dims, TaskLossOnly
from distillbench.models.backends.base import Backend, Graph
from distillbench.models.gnn import GNN, Model, Output, canonical_state, count_parameters
from distillbench.params import Parameters
from distillbench.profiling.energy import energy_of
from distillbench.profiling.exported import Exported, exported, onnx_runtime, short_reason
from distillbench.profiling.flops import dense_flops, edge_flops
from distillbench.profiling.peak_memory import peak_memory_mb
from distillbench.training.fit import RunError, fit
from distillbench.training.inputs import Batch, Inputs

log = logging.getLogger("distillbench")

EPOCHS = 4  # trained for the time of one: the first is warm-up
WARM_UP_SECONDS = 0.1  # a function runs for so long, and WARM_UP_CALLS times, before it is timed
WARM_UP_CALLS = 3
BLOCK_IQR = 0.1  # timing ends where the blocks' interquartile range is below this fraction of their median
MIN_SECONDS, MAX_SECONDS = 0.3, 1.2  # of the blocks of one function


class Pass(NamedTuple):
    """What one pass measured. facts: what does not vary, by column. samples: what does: every value, by column."""

    facts: dict[str, Any]
    samples: dict[str, list[float]]


def measure(model: GNN, inputs: Inputs, split: Split, *, deploy: bool = False, energy: str | None = None) -> Pass:
    """Measure inference with one model once; ``profile_table.COLUMNS`` says what each figure is.

    The peak of memory comes first, of the second forward pass: the allocator keeps what later calls would need. Where
    memory ends, the figures found until then stay (see ``limited``). deploy: also in the forms of ``exported``. energy:
    the country, where it is to be measured (``energy_of``).
    """
    backend = inputs.backend
    batch, one = inputs.ordered(split.train)[0], _one_graph(inputs, split)
    # an MLP's cost has to be that of a model without a graph: it gets none, and would fail if it touched it
    reads_graph = uses_edges(model.spec) or predicts_graphs(model.spec)
    facts: dict[str, Any] = {
        "parameters": count_parameters(model),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "file_bytes": _file_bytes(model),
        "reads_graph": reads_graph,
        "batch_nodes": batch.graph.num_nodes,
        "batch_graphs": batch.graph.num_graphs,
        "graph_nodes": one.graph.num_nodes,
        "one_graph": torch.equal(batch.graph_ids, one.graph_ids),
        "throughput_of": "graphs" if inputs.data.task.level == "graph" else "nodes",
        "throughput_units": batch.graph.num_graphs if inputs.data.task.level == "graph" else batch.graph.num_nodes,
    }
    found = Pass(facts, {})
    model.eval()
    forward = partial(_forward, model, batch.graph if reads_graph else None, batch.x)
    with limited(facts, "inference"):
        _measure_inference(found, model, forward, inputs, None if facts["one_graph"] else one)
        if deploy:
            _measure_forms(found, model, backend, batch, reference=forward().logits)
        if energy:
            used = energy_of(partial(_finished, forward, inputs.device), energy)
            facts["energy_status"] = used.status
            if used.joules is not None:
                found.samples["energy_joules"] = [used.joules]
    return found


@contextlib.contextmanager
def limited(facts: dict[str, Any], what: str) -> Iterator[None]:
    """Measure ``what`` as far as memory and numbers go: ``{what}_status`` of ``facts`` is "ok", or the limit it met."""
    facts[f"{what}_status"] = "ok"
    try:
        yield
    except (RunError, MemoryError, RuntimeError) as error:  # that of a GPU's memory is a RuntimeError
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not (memory or isinstance(error, RunError) or "without overflow" in str(error)):  # as experiment.run
            raise
        facts[f"{what}_status"] = "out of memory" if memory else short_reason(error)


def _measure_inference(
    found: Pass, model: GNN, forward: Callable[[], Output], inputs: Inputs, one: Batch | None
) -> None:
    """The model as it is, on the batch and on ``one`` graph; the figures found so far stay where it fails."""
    facts, samples, threads = found.facts, found.samples, torch.get_num_threads()
    # once before its memory is measured: a graph is converted for its layers, and libraries read their code from disk
    out = forward()
    facts["batch_edges"] = max((edges.shape[1] for edges in out.edge_index), default=0)
    try:
        operations = edge_flops(model, out, inputs.backend.name)
    except Exception:  # a plug-in's own: not worth the profile
        if not isinstance(model.body, Model):
            raise
        log.exception("edge_flops of %s", model.spec.model)
        operations = None
    if operations is not None:
        facts["edge_flops"] = operations
    del out
    samples["peak_memory_mb"] = [peak_memory_mb(forward, inputs.device)]
    facts["dense_flops"] = dense_flops(forward)
    samples["latency_ms"] = block_times_ms(forward, threads)
    if one is not None:
        by_itself = partial(_forward, model, one.graph if facts["reads_graph"] else None, one.x)
        samples["graph_latency_ms"] = block_times_ms(by_itself, threads)


def _measure_forms(found: Pass, model: GNN, backend: Backend, batch: Batch, *, reference: Tensor) -> None:
    """The model as it would be deployed."""
    threads, reads_graph = torch.get_num_threads(), found.facts["reads_graph"]
    forms = {"exported": exported(model, backend, batch, reads_graph=reads_graph, reference=reference)}
    if not reads_graph:
        forms["onnx"] = onnx_runtime(model, backend, batch, threads=threads, reference=reference)
    for name, form in forms.items():
        found.facts.update({f"{name}_status": form.status, f"{name}_difference": form.difference})
        if form.run:
            found.samples[f"{name}_latency_ms"] = block_times_ms(_of_form(form), threads)


def block_times_ms(run: Callable[[], Any], threads: int) -> list[float]:
    """Milliseconds of one call: a value per block of calls, blocks being long enough that the clock does not count.

    Blocks are timed until they agree (BLOCK_IQR), for MIN_SECONDS at least and MAX_SECONDS at most, after a warm-up.
    """
    calls, begun = 0, time.perf_counter()
    while calls < WARM_UP_CALLS or time.perf_counter() - begun < WARM_UP_SECONDS:
        run()
        calls += 1
    timer = Timer("run()", globals={"run": run}, num_threads=threads)  # waits for a GPU at both ends of a block
    blocks = timer.adaptive_autorange(BLOCK_IQR, min_run_time=MIN_SECONDS, max_run_time=MAX_SECONDS)
    return [1000 * seconds for seconds in blocks.times]


@torch.inference_mode()
def _forward(model: GNN, graph: Graph | None, x: torch.Tensor) -> Output:
    out: Output = model(graph, x)
    return out


def _of_form(form: Exported) -> Callable[[], Any]:
    run = form.run

    @torch.inference_mode()
    def call() -> Any:
        assert run is not None
        return run()

    return call


def _finished(run: Callable[[], Any], device: torch.device) -> None:
    """Run, and wait for a GPU to have done it."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _one_graph(inputs: Inputs, split: Split) -> Batch:
    """The training graph of median size by itself; of a transductive data set, the whole."""
    if inputs.transductive:
        return inputs.ordered(split.train)[0]
    sizes = inputs.data.graph_ptr.diff()[split.train]
    middle = sizes.argsort(stable=True)[(len(sizes) - 1) // 2]
    return inputs.ordered(split.train[middle : middle + 1])[0]


def _file_bytes(model: GNN) -> int:
    """Size of the weights as a run's file holds them."""
    file = io.BytesIO()
    torch.save(canonical_state(model), file)
    return file.tell()


def epoch_seconds(model: nn.Module, inputs: Inputs, split: Split, training: Training) -> list[float]:
    """Seconds of each epoch but the first, training and validation. It changes the weights."""
    method = TaskLossOnly(Parameters(), Dims((), 0), Dims((), 0))
    result = fit(model, method, inputs, split, training.model_copy(update={"epochs": EPOCHS, "patience": None}), seed=0)
    ends = [row["seconds"] for row in result.history]
    return [later - earlier for earlier, later in pairwise(ends)]
