"""The forms in which a trained student is deployed: an exported program, and of an MLP a model for ONNX Runtime.

Each is made of the model as it is, checked against it, and timed like it. Where one cannot be made, the reason takes
the place of its figures.
"""

import contextlib
import copy
import io
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim

from distillbench.models.backends.base import Backend, Graph
from distillbench.models.gnn import GNN
from distillbench.training.inputs import Batch

TOLERANCE = 1e-5  # of the outputs' largest magnitude
_REASON = 110  # characters of an error that are kept


class Exported(NamedTuple):
    """status: "ok", "for N nodes only" where it takes no other size, or why there is nothing to run. difference: the
    largest of its outputs from the model's own, as a fraction of the largest magnitude of these; None where there are
    none, or not a number."""

    status: str
    difference: float | None = None
    run: Callable[[], Any] | None = None


class Deployed(nn.Module):
    """A model as a function of tensors: ``forward(x [N, d_in], edge_index [2, E])`` -> logits.

    An MLP has no ``edge_index``; neither has a model that draws its own edges, whose clouds are those of ``graph``.
    """

    def __init__(self, model: GNN, backend: Backend, graph: Graph | None) -> None:
        super().__init__()
        self.model, self.backend, self.graph = model, backend, graph

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """See the class."""
        graph: Any = self.graph
        if edge_index is not None:
            graph = self.backend.with_edges(_Drawn(None, edge_index, graph.ptr, nodes=x.shape[0]), edge_index)
        logits: Tensor = self.model(graph, x).logits
        return logits


@dataclass(frozen=True)
class _Drawn(Graph):
    """A graph whose number of nodes is that of the features, so that the program takes graphs of any size."""

    nodes: int = 0

    @property
    def num_nodes(self) -> int:
        return self.nodes


def exported(model: GNN, backend: Backend, batch: Batch, *, reads_graph: bool, reference: Tensor) -> Exported:
    """The model by ``torch.export``, as far as PyTorch can trace the library; run on ``batch``.

    Sizes of nodes and edges stay free where the layers allow, which two copies of the batch side by side show.
    reference: the logits that the model itself gives.
    """
    graph = batch.graph if reads_graph else None
    inputs = (batch.x, batch.graph.edge_index) if graph is not None and graph.edge_index.shape[1] else (batch.x,)
    free = ({0: Dim.AUTO}, {1: Dim.AUTO})[: len(inputs)]
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(Deployed(model, backend, graph).eval(), inputs, dynamic_shapes=free).module()
            return _checked(program, inputs, reference)
    except Exception as error:  # a tracer meets whatever a library does
        return Exported(short_reason(error))


def onnx_runtime(model: GNN, backend: Backend, batch: Batch, *, threads: int, reference: Tensor) -> Exported:
    """An MLP in ONNX Runtime, on the CPU with ``threads`` threads, whatever the model's device."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx needs
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) or error.name is None:  # it is there and does not load
            return Exported(short_reason(error))
        return Exported(f"{error.name} is not installed: pip install 'distillbench[onnx]'")
    x = batch.x.cpu()
    try:
        with _quiet(), torch.no_grad():
            deployed = Deployed(copy.deepcopy(model).cpu(), backend, None).eval()
            program = torch.onnx.export(deployed, (x,), dynamo=True, dynamic_shapes=({0: Dim.AUTO},), verbose=False)
            assert program is not None
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            content = program.model_proto.SerializeToString()
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def in_runtime(x: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {name: x.numpy()})[0])

        return _checked(in_runtime, (x,), reference.cpu())
    except Exception as error:
        return Exported(short_reason(error))


def _checked(program: Callable[..., Tensor], inputs: tuple[Tensor, ...], reference: Tensor) -> Exported:
    """``program`` on ``inputs`` (x [N, d_in], and edge_index [2, E] if it reads one), if its outputs are the model's.

    Two copies of the graph side by side have to give the outputs ``reference`` twice, or it is for this size only.
    """
    difference = _difference(program(*inputs), reference)
    if not difference <= TOLERANCE:  # NaN is no agreement
        status = f"its outputs differ from the model's by {difference:.1e} of their largest"
        return Exported(status, None if math.isnan(difference) else difference)
    nodes = inputs[0].shape[0]
    status = "ok" if _takes_two(program, inputs, reference) else f"for {nodes} nodes only"
    return Exported(status, difference, lambda: program(*inputs))


def _takes_two(program: Callable[..., Tensor], inputs: tuple[Tensor, ...], reference: Tensor) -> bool:
    x, *edges = inputs
    twice = [torch.cat([x, x]), *[torch.cat([each, each + x.shape[0]], dim=1) for each in edges]]
    try:
        return _difference(program(*twice), torch.cat([reference, reference])) <= TOLERANCE
    except Exception:  # the guard of an exported program, or an operation whose sizes do not fit
        return False


def _difference(outputs: Tensor, reference: Tensor) -> float:
    if outputs.shape != reference.shape:
        return math.inf
    return ((outputs - reference).abs().max() / reference.abs().max()).item()


def short_reason(error: BaseException) -> str:
    """Kind and first line of an error, in at most 110 characters."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    first = first.split(" (")[0]  # what follows is for who traces the tracer
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return text if len(text) <= _REASON else f"{text[: _REASON - 1].rstrip()}…"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracers print and log what they do and what they could not trace; the reason says it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
