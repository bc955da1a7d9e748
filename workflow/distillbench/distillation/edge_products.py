"""What the features at the two ends of an edge make, for every edge, without a tensor of edges × features.

Dot products and squared distances are sampled dense-dense products, their gradients sums along rows of edges (see
compressed_rows); both run in float64 on blocks of columns, so memory is that of a block of nodes and of numbers per
edge. They are differentiable to any order, since the gradient of the one is made of the other; absolute distances
twice. Near-duplicates keep their digits in distances, cosines and first derivatives; in second ones they are not looked
for.
On GPUs without fast float64 (most but those for data centres have 1/32 of float32's speed or less) all this is slow.
"""

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import repeat
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distillbench.models.backends.compressed_rows import Rows, compressed, products, reduced, sums

_COLUMNS = 64  # of a block, at most: a tenth slower than 128, with half of the memory
# of one chunk of edges × features: 1 MB in float64 stays in cache, 128 MB keep a GPU busy
_CHUNK_ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 24}
# nearer than a thousandth of their lengths, two nodes' distance is computed from their difference
_NEAR = 1e-6

_Kind = Literal["product", "squared"]


class Edges:
    """A set of edges, in any order, as rows by destination and by source; sorted when needed.

    Raises ValueError: an end is not a node, not in 0 … num_nodes - 1.
    """

    def __init__(self, source: Tensor, destination: Tensor, num_nodes: int) -> None:
        self.source, self.destination, self.num_nodes = source, destination, num_nodes
        for end, nodes in (("source", source), ("destination", destination)):
            # what follows indexes unchecked
            for node in torch.stack(nodes.aminmax()).tolist() if len(nodes) else ():
                if not 0 <= node < num_nodes:
                    raise ValueError(f"edge_index: an edge's {end} is node {node}, but num_nodes is {num_nodes}")

    @cached_property
    def into(self) -> tuple[Rows, Tensor | None]:
        """Row i: the edges into node i, neighbours are their sources; and see ``compressed``."""
        return compressed(self.destination, self.source, self.num_nodes)

    @cached_property
    def out_of(self) -> tuple[Rows, Tensor | None]:
        """Row i: the edges out of node i, neighbours are their destinations; and see ``compressed``."""
        return compressed(self.source, self.destination, self.num_nodes)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """a_destination · b_source for every edge, [E] in the order of the edges, of a, b [N, D]."""
        rows, order = self.into
        found = products(rows, a, b)
        return found if order is None else torch.empty_like(found).index_copy_(0, order, found)


def edge_dot(h: Tensor, edges: Edges) -> Tensor:
    """h_source · h_destination for every edge, [E] float64, of features [N, D]."""
    return _EdgeProduct.apply(h, h, edges, "product") / 2  # type: ignore[no-any-return, no-untyped-call]


def edge_squared_distance(h: Tensor, edges: Edges) -> Tensor:
    """|h_source - h_destination|^2 for every edge, [E] float64, of features [N, D].

    |x|^2 + |y|^2 - 2 x·y in float64 is right to eight digits where the distance is more than a thousandth of the
    lengths. Where it is not (near-duplicates, which would lose all digits) it is computed from the difference x - y. An
    edge's number depends on its two ends alone: a graph's are the same to the bit in every batch.
    """
    return _EdgeProduct.apply(h, h, edges, "squared")  # type: ignore[no-any-return, no-untyped-call]


def edge_absolute_distance(h: Tensor, edges: Edges) -> Tensor:
    """|h_source - h_destination|_1 for every edge, [E] float64, of features [N, D]. At equal entries its derivative is
    0."""
    return _AbsoluteDistance.apply(h, edges.source, edges.destination)  # type: ignore[no-any-return, no-untyped-call]


def edge_cosine(h: Tensor, edges: Edges) -> Tensor:
    """Cosine of the angle between h_source and h_destination for every edge, [E] float64, of features [N, D].

    0 where either is a row of zeros.
    """
    return _Cosine.apply(h, edges)  # type: ignore[no-any-return, no-untyped-call]


def unit_rows(z: Tensor) -> Tensor:
    """Rows of length one, of [N, D]. A row of zeros stays, with a gradient of its own size.

    F.normalize would multiply the gradient of such a row by 1e12; they occur where a node has no features.
    """
    return z / _or_one(z.norm(dim=-1, keepdim=True))


def _or_one(length: Tensor) -> Tensor:
    return torch.where(length > 0, length, 1.0)


class _EdgeProduct(torch.autograd.Function):
    """Of a, b [N, D], for every edge, symmetric in a and b, [E] float64.

    product: a_source·b_destination + a_destination·b_source;
    squared: (a_source - a_destination)·(b_source - b_destination).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, edges: Edges, kind: _Kind) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.edges, ctx.kind = edges, kind
        dots = torch.zeros(len(edges.source), dtype=torch.float64, device=a.device)
        own = torch.zeros(len(a), dtype=torch.float64, device=a.device)
        for x, y in zip(_blocks(a), repeat(None) if a is b else _blocks(b), strict=False):
            if kind == "squared":
                own += torch.linalg.vecdot(x, x if y is None else y)
            dots += edges.dot(x, x).mul_(2) if y is None else edges.dot(x, y).add_(edges.dot(y, x))
        if kind == "product":
            return dots
        lengths = own[edges.source] + own[edges.destination]
        squared = lengths - dots
        if a is b:
            near = (squared <= _NEAR * lengths).nonzero()[:, 0]
            squared[near] = _direct_squared_distance(a, edges.source[near], edges.destination[near])
        return squared

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad[:2]
        grad_a = _Spread.apply(grad, b, ctx.edges, ctx.kind) if of_a else None  # type: ignore[no-untyped-call]
        if a is b:
            return grad_a, grad_a, None, None
        return grad_a, _Spread.apply(grad, a, ctx.edges, ctx.kind) if of_b else None, None, None  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """The transpose of _EdgeProduct in its first argument: numbers g [E] and x [N, D] to [N, D], linear in both.

    product: every edge adds g x_destination at its source and g x_source at its destination;
    squared: it adds g (x_source - x_destination) at its source and the negative of that at its destination.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, edges: Edges, kind: _Kind) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.edges, ctx.kind = edges, kind
        (into, of_into), (out_of, of_out_of) = edges.into, edges.out_of
        g_into, g_out_of = _in_order(g, of_into), _in_order(g, of_out_of)
        total = reduced(g_into, into, "sum").add_(reduced(g_out_of, out_of, "sum"))[:, None]
        out = torch.empty_like(x)
        for columns in _columns(x.shape[1]):
            block = x[:, columns].double().contiguous()
            spread = sums(into, block, g_into).add_(sums(out_of, block, g_out_of))
            # both parts in float64: between near-duplicates they cancel
            out[:, columns] = spread if kind == "product" else spread.addcmul_(total, block, value=-1).neg_()
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        g, x = ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad[:2]
        grad_g = _EdgeProduct.apply(grad, x, ctx.edges, ctx.kind) if of_g else None  # type: ignore[no-untyped-call]
        return grad_g, _Spread.apply(g, grad, ctx.edges, ctx.kind) if of_x else None, None, None  # type: ignore[no-untyped-call]


class _Cosine(torch.autograd.Function):
    """Dot products of unit rows, which are made a block of columns at a time."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, edges: Edges) -> Tensor:
        squares = torch.zeros(len(h), 1, dtype=torch.float64, device=h.device)
        for block in _blocks(h):
            squares += torch.linalg.vecdot(block, block)[:, None]
        length = _or_one(squares.sqrt_())
        cosine = torch.zeros(len(edges.source), dtype=torch.float64, device=h.device)
        for block in _blocks(h):
            unit = block / length
            cosine += edges.dot(unit, unit)
        ctx.save_for_backward(h, length, cosine)
        ctx.edges = edges
        return cosine

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        h, length, cosine = ctx.saved_tensors
        edges: Edges = ctx.edges
        if torch.is_grad_enabled():  # somebody wants second derivatives: by what is differentiable to any order
            return torch.autograd.grad(edge_dot(unit_rows(h.double()), edges), h, grad, create_graph=True)[0], None
        (into, of_into), (out_of, of_out_of) = edges.into, edges.out_of
        g_into, g_out_of = _in_order(grad, of_into), _in_order(grad, of_out_of)
        along = reduced(g_into * _in_order(cosine, of_into), into, "sum")
        along = along.add_(reduced(g_out_of * _in_order(cosine, of_out_of), out_of, "sum"))[:, None]
        out = torch.empty_like(h)
        for columns in _columns(h.shape[1]):
            unit = h[:, columns].double().contiguous() / length
            spread = sums(into, unit, g_into).add_(sums(out_of, unit, g_out_of))
            # a unit row changes across itself only; both parts in float64: between near-duplicates they cancel
            out[:, columns] = spread.addcmul_(along, unit, value=-1).div_(length)
        return out, None


class _AbsoluteDistance(torch.autograd.Function):
    """Sum over features of |h_source - h_destination|."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, source: Tensor, destination: Tensor) -> Tensor:
        ctx.save_for_backward(h, source, destination)
        out = torch.zeros(len(source), dtype=torch.float64, device=h.device)
        for _, part, difference in _differences(h, source, destination):
            out[part] += difference.abs_().sum(dim=-1)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SpreadSigns.apply(grad, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]


class _SpreadSigns(torch.autograd.Function):
    """The gradient of _AbsoluteDistance: g sign(h_source - h_destination), added at the source, taken away at the
    destination. Linear in g [E], constant in h almost everywhere."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, h: Tensor, source: Tensor, destination: Tensor) -> Tensor:
        ctx.save_for_backward(h, source, destination)
        out = torch.zeros_like(h, dtype=torch.float64)
        for columns, part, difference in _differences(h, source, destination):
            sign = difference.sign_().mul_(g[part, None])
            out[:, columns].index_add_(0, source[part], sign).index_add_(0, destination[part], sign, alpha=-1)
        return out.to(h.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        h, source, destination = ctx.saved_tensors
        of_g = torch.zeros(len(source), dtype=torch.float64, device=h.device)
        of_grad = _differences(grad, source, destination)
        for (_, part, difference), (_, _, change) in zip(_differences(h, source, destination), of_grad, strict=True):
            of_g[part] += difference.sign_().mul_(change).sum(dim=-1)
        return of_g, None, None, None


def _differences(h: Tensor, source: Tensor, destination: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """h_source - h_destination in float64, a block of columns and a chunk of edges at a time: which, and the values.

    The values are in a buffer that the next ones overwrite.
    """
    for columns in _columns(h.shape[1]):
        block = h[:, columns].double().contiguous()
        step = max(1, _CHUNK_ELEMENTS[h.device.type] // block.shape[1])
        a, b = block.new_empty(2, min(step, len(source)), block.shape[1])
        for begin in range(0, len(source), step):
            part = slice(begin, begin + step)
            i, j = source[part], destination[part]
            torch.index_select(block, 0, i, out=a[: len(i)])
            torch.index_select(block, 0, j, out=b[: len(i)])
            yield columns, part, a[: len(i)].sub_(b[: len(i)])


def _direct_squared_distance(h: Tensor, source: Tensor, destination: Tensor) -> Tensor:
    """The same from differences; of a node and itself without looking."""
    apart = (source != destination).nonzero()[:, 0]
    found = torch.zeros(len(apart), dtype=torch.float64, device=h.device)
    for _, part, difference in _differences(h, source[apart], destination[apart]):
        found[part] += difference.square_().sum(dim=-1)
    return torch.zeros(len(source), dtype=torch.float64, device=h.device).index_copy_(0, apart, found)


def _in_order(values: Tensor, order: Tensor | None) -> Tensor:
    return values if order is None else values[order]


def _blocks(h: Tensor) -> Iterator[Tensor]:
    """The columns of [N, D] in blocks, in float64."""
    for columns in _columns(h.shape[1]):
        yield h[:, columns].double().contiguous()


def _columns(width: int) -> list[slice]:
    """Blocks of nearly the same width: a narrow one would cost almost as much as a full one."""
    step = math.ceil(width / max(1, math.ceil(width / _COLUMNS)))
    return [slice(start, start + step) for start in range(0, width, max(1, step))]
