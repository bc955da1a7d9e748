"""Operations of one forward pass: dense matrix products are counted as they run, message passing by formula."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from distillbench.config.specs import GATSpec
from distillbench.models.gnn import GNN, Model, Output

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm)


def dense_flops(run: Callable[[], Any]) -> int:
    """Operations of the dense matrix products in ``run()``, multiply and add counted apart.

    Counted are mm, addmm, bmm and what is made of them, whoever calls them, the neighbour search of a dynamic graph as
    well. Not counted: products with a sparse matrix, which PyTorch's counter would take for dense ones (they are
    message passing, see ``edge_flops``), the libraries' own kernels, and elementwise operations.
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


# Layers whose library multiplies each message by a weight: DGL scales the nodes of a GCN instead, before and after;
# the means of SAGE are weighted sums on compressed rows, elsewhere sums that are divided.
_WEIGHTED = {("gat", "pyg"), ("gat", "dgl"), ("gat", "csr"), ("gcn", "pyg"), ("gcn", "csr"), ("sage", "csr")}
# Layers that may sum messages before their matrix product does: of the input's width, or of the narrower side's.
_OF_INPUT = {("sage", "pyg"), ("gin", "pyg"), ("gin", "dgl"), ("gin", "csr")}
_OF_NARROWER = {("gcn", "dgl"), ("gcn", "csr"), ("sage", "dgl"), ("sage", "csr")}

# whose messages the sets above were made for: one that is not here has no formula, rather than a wrong one
COUNTED = {
    (model, library) for model in ("gat", "gcn", "sage", "gin", "mlp", "dgcnn") for library in ("pyg", "dgl", "csr")
}


def edge_flops(model: GNN, out: Output, backend: str) -> int | None:
    """Operations of message passing in one forward pass, by formula: sum over layers of c · edges · width.

    c = 2 where the layer weights messages and sums them, 1 where it only sums, averages or maximises them. The width is
    that of the messages, which depends on the library ``backend`` (its name), too: a sum over neighbours may come
    before the layer's matrix product or after. Scores and softmax of an attention, a few operations per edge and head,
    are left out. A plug-in says it itself, or None. Raises NotImplementedError for another model or library that the
    formulas do not know.
    """
    spec = model.spec
    if isinstance(model.body, Model):
        return model.body.edge_flops(out, backend)
    layer = (spec.model, backend)
    if layer not in COUNTED:
        raise NotImplementedError(
            f"edge_flops: no formula for the messages of {spec.model!r} with {backend!r}: flops.py"
        )
    widths = list(spec.hidden_dims)
    edges = [used.shape[1] for used in out.edge_index]
    if spec.model != "dgcnn" and not getattr(spec, "readout", None):  # the output layer passes messages too
        heads = spec.heads_per_layer[-1] if isinstance(spec, GATSpec) else 1
        widths.append(out.logits.shape[1] * heads)
        edges.append(edges[-1])
    inputs = [model.d_in, *widths[:-1]]
    if layer in _OF_INPUT:
        widths = inputs
    elif layer in _OF_NARROWER:
        widths = [min(sides) for sides in zip(inputs, widths, strict=True)]
    weight = 2 if layer in _WEIGHTED else 1
    return weight * sum(count * width for count, width in zip(edges, widths, strict=True))
