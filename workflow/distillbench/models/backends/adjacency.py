"""The edges of a graph in compressed rows, by destination and by source: what sums over neighbours are taken along.

Every layer of a model, every head of its attention and both of its passes use the same edges. So they are sorted and
counted once per graph, and a batch puts the results of its graphs one after another instead of sorting again.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from distillbench.models.backends.compressed_rows import Rows, compressed, smallest


class Adjacency:
    """A graph's edges. What it does not need at once it works out when first asked, and keeps.

    incoming: rows are destinations, neighbours sources.
    """

    def __init__(self, incoming: Rows) -> None:
        self.incoming = incoming
        self._heads: dict[int, Adjacency] = {}

    @property
    def num_nodes(self) -> int:
        """Number of rows."""
        return len(self.incoming.ptr) - 1

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return len(self.incoming.neighbour)

    @property
    def outgoing(self) -> Rows:
        """Rows are sources, neighbours destinations."""
        return self._transposed[0]

    @property
    def order(self) -> Tensor:
        """[E]: the place among the incoming edges of each of the outgoing ones."""
        return self._transposed[1]

    @cached_property
    def _transposed(self) -> tuple[Rows, Tensor]:
        with _kept():
            ptr, source, destination = self.incoming
            outgoing, order = compressed(source, destination, self.num_nodes)
            order = torch.arange(self.num_edges, device=ptr.device) if order is None else order
            return outgoing, order.to(ptr.dtype)

    @cached_property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """1/√(d_i d_j) of each edge, d counting incoming edges: [E], as ``incoming`` and ``outgoing`` are sorted.

        Kipf, Welling: Semi-Supervised Classification with Graph Convolutional Networks. ICLR 2017 (section 2).
        """
        with _kept():
            _, source, destination = self.incoming
            # a source without incoming edges has weight 0, as in PyG; such a graph is directed, and libraries differ
            scale = self.incoming.degrees.to(torch.float32).rsqrt().nan_to_num(posinf=0.0)
            weights = scale[source] * scale[destination]
            return weights, weights[self.order]

    @cached_property
    def shares(self) -> tuple[Tensor, Tensor]:
        """1/d_i of each edge into i, so that sums are means: [E], as ``normalisation``."""
        with _kept():
            weights = self.incoming.degrees.to(torch.float32).reciprocal()[self.incoming.row]
            return weights, weights[self.order]

    def heads(self, count: int) -> "Adjacency":
        """The edges of ``count`` graphs like this one at once: node i of copy h is i·count + h.

        That is how [N, heads, D] lies in memory, so attention with many heads is attention with one on this graph.
        Kept for each ``count`` but 1: with ``outgoing`` and ``order`` 20 bytes per edge and head and 8 per node and
        head; a batch keeps as much once more, beside that of its parts.
        """
        if count == 1:  # not among those kept: a cycle of references would outlive the step it was made for
            return self
        if count not in self._heads:
            with _kept():
                self._heads[count] = self._repeated(count)
        return self._heads[count]

    def _repeated(self, count: int) -> "Adjacency":
        dtype = smallest(count * max(self.num_edges, self.num_nodes))
        head = torch.arange(count, device=self.incoming.ptr.device, dtype=dtype)

        def spread(side: Rows) -> tuple[Rows, Tensor]:
            ptr, neighbour, row = (part.to(dtype) for part in side)
            degrees = ptr.diff()
            edge = torch.arange(len(neighbour), device=ptr.device, dtype=dtype)
            # place of edge e's copy h: all copies of the rows before, then h times this row, then what it has before e
            place = (edge + (count - 1) * ptr[row])[:, None] + degrees[row][:, None] * head
            start = count * ptr[:-1, None] + degrees[:, None] * head
            ends = [torch.empty_like(place).view(-1) for _ in range(2)]
            for end, of_edge in zip(ends, (neighbour, row), strict=True):
                end[place.view(-1)] = (of_edge[:, None] * count + head).view(-1)
            return Rows(torch.cat([start.view(-1), count * ptr[-1:]]), *ends), place

        incoming, place = spread(self.incoming)
        outgoing, place_outgoing = spread(self.outgoing)
        order = torch.empty_like(place).view(-1)
        order[place_outgoing.view(-1)] = place[self.order].view(-1)
        repeated = Adjacency(incoming)
        repeated.__dict__["_transposed"] = outgoing, order
        return repeated


class Batched(Adjacency):
    """Several graphs as one. Each part's rows, once worked out, serve every batch that the part is in."""

    def __init__(self, parts: Sequence[Adjacency]) -> None:
        super().__init__(_joined(parts, [part.incoming for part in parts]))
        self.parts = parts

    @cached_property
    def _transposed(self) -> tuple[Rows, Tensor]:
        with _kept():
            dtype = self.incoming.ptr.dtype
            order = _shifted([part.order for part in self.parts], [part.num_edges for part in self.parts], dtype)
            return _joined(self.parts, [part.outgoing for part in self.parts]), order

    def _repeated(self, count: int) -> Adjacency:
        return Batched([part.heads(count) for part in self.parts])


def adjacency(edge_index: Tensor, num_nodes: int) -> Adjacency:
    """The edges of ``edge_index`` [2, E]."""
    with _kept():
        source, destination = edge_index
        return Adjacency(compressed(destination, source, num_nodes)[0])


def _kept() -> torch.inference_mode:
    """What is worked out within inference mode must do for training, too."""
    return torch.inference_mode(mode=False)


def _joined(parts: Sequence[Adjacency], sides: Sequence[Rows]) -> Rows:
    nodes, edges = ([getattr(part, name) for part in parts] for name in ("num_nodes", "num_edges"))
    dtype = smallest(max(sum(nodes), sum(edges)))
    # the last pointer of a part is the first of the next
    ptr = [side.ptr if last else side.ptr[:-1] for side, last in zip(sides, _is_last(sides), strict=True)]
    return Rows(
        _shifted(ptr, edges, dtype),
        _shifted([side.neighbour for side in sides], nodes, dtype),
        _shifted([side.row for side in sides], nodes, dtype),
    )


def _is_last(items: Sequence[object]) -> list[bool]:
    return [place == len(items) - 1 for place in range(len(items))]


def _shifted(values: Sequence[Tensor], sizes: Sequence[int], dtype: torch.dtype) -> Tensor:
    """All ``values`` in one, each moved by the sum of the ``sizes`` before."""
    start, moved = 0, []
    for value, size in zip(values, sizes, strict=True):
        moved.append(value.to(dtype) + start if start else value.to(dtype))
        start += size
    return torch.cat(moved)
