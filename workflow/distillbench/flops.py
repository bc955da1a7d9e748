"""Operations of one forward pass: dense matrix products are counted as they run, message passing by formula."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from distillbench.models import GNN, Output
from distillbench.specs import GATSpec

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm)


def dense_flops(run: Callable[[], Any]) -> int:
    """Operations of the dense matrix products in ``run()``, multiply and add counted apart.

    Counted are mm, addmm, bmm and what is made of them, whoever calls them, the neighbour search of a dynamic graph as
    well. Not counted: products with a sparse matrix, which PyTorch's counter would take for dense ones (they are message
    passing, see ``edge_flops``), the libraries' own kernels, and elementwise operations.
    """
    counter = FlopCounterMode(display=False, custom_mapping={op: _of_dense(flop_registry[op]) for op in _PRODUCTS})
    with counter:
        run()
    return counter.get_total_flops()


def _of_dense(formula: Callable[..., int]) -> Callable[..., int]:
    """The formula of a product, nothing where a factor is sparse."""

    def count(*factors: Any, out_val: Any = None, **options: Any) -> int:
        sparse = any(isinstance(factor, Tensor) and factor.layout != torch.strided for factor in factors)
        return 0 if sparse else formula(*factors, out_val=out_val, **options)

    count._get_raw = True  # type: ignore[attr-defined]  # how the counter knows who wants tensors rather than shapes
    return count


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
