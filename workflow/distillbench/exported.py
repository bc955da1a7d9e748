"""The forms in which a trained student is deployed: an exported program, and of an MLP a model for ONNX Runtime.

Each is made of the model as it is, checked against it, and timed like it. Where one cannot be made, the reason takes
the place of its figures.
"""

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim

from distillbench.backends.base import Backend, Graph
from distillbench.inputs import Batch
from distillbench.models import GNN

TOLERANCE = 1e-5  # of the outputs' largest magnitude
_REASON = 110  # characters of an error that are kept


class Exported(NamedTuple):
    """status: "ok", or why there is nothing to run. difference: the largest of its outputs from the model's own, as a
    fraction of the largest magnitude of these; None where there are none."""

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

    Sizes of nodes and edges stay free where the layers allow. reference: the logits that the model itself gives.
    """
    graph = batch.graph if reads_graph else None
    inputs = (batch.x, batch.graph.edge_index) if graph is not None and graph.edge_index.shape[1] else (batch.x,)
    free = ({0: Dim.AUTO}, {1: Dim.AUTO})[: len(inputs)]
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(Deployed(model, backend, graph).eval(), inputs, dynamic_shapes=free).module()
            return _checked(lambda: program(*inputs), reference)
    except Exception as error:  # a tracer meets whatever a library does
        return Exported(_reason(error))


def onnx_runtime(model: GNN, backend: Backend, batch: Batch, *, threads: int, reference: Tensor) -> Exported:
    """An MLP in ONNX Runtime, on the CPU with ``threads`` threads, whatever the model's device."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx needs
    except ImportError as error:
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
        given = {session.get_inputs()[0].name: x.numpy()}
        return _checked(lambda: torch.from_numpy(session.run(None, given)[0]), reference.cpu())
    except Exception as error:
        return Exported(_reason(error))


def _checked(run: Callable[[], Tensor], reference: Tensor) -> Exported:
    """``run``, if its outputs are the model's."""
    difference = ((run() - reference).abs().max() / reference.abs().max()).item()
    if not difference <= TOLERANCE:  # NaN is no agreement
        return Exported(f"its outputs differ from the model's by {difference:.1e} of their largest", difference)
    return Exported("ok", difference, run)


def _reason(error: Exception) -> str:
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
