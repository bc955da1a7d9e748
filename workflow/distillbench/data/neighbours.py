"""The k nearest neighbours within point clouds, exactly, block by block; those of a data set's own points only once.

A product of matrices, |x|² + |y|² - 2xy, is fast and loses the digits of near points. A bound on what it rounds off
(at torch's usual precision of products) says whose neighbours it leaves uncertain; there, direct differences in float64
decide. So the result depends neither on what else is in a batch, nor on the device, nor on how near points are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillbench.data.graph_data import GraphData

_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}  # of one tensor of a block: stays in cache, or keeps a GPU busy
_MORE = 8  # candidates beside the k


@torch.no_grad()
def nearest_neighbours(x: Tensor, ptr: Tensor, k: int) -> Tensor:
    """The k nearest nodes of the same graph for every node, itself included, by Euclidean distance of ``x``.

    Args:
        x: [N, D] floating. ptr: [G + 1] int64 on the CPU, first node of each graph.

    Returns:
        [2, N·k] int64 (neighbour, node), sorted by node, then by neighbour. Of equally distant nodes the one with the
        lower number is the nearer; distances are compared in float64. Memory beside that: blocks of a million numbers,
        however large a graph is.

    Raises:
        ValueError: a graph has fewer than k nodes.
    """
    sizes = ptr.diff()
    if k > int(sizes.min()):
        raise ValueError(f"k: {k} neighbours asked for, but a graph has only {int(sizes.min())} nodes")
    near = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    sure = torch.empty(len(x), dtype=torch.bool, device=x.device)
    for nodes, real, rows in _blocks(sizes, ptr, k, x):
        found, certain = _by_product(x[nodes], real.to(x.device), rows, k)
        found += nodes[:, :1, None]
        # only real nodes have a row in the result; which they are is known on the CPU
        places = real[:, rows].flatten().nonzero().squeeze(1).to(x.device)
        own = nodes[:, rows].flatten()[places]
        near[own] = found.flatten(0, 1)[places]
        sure[own] = certain.flatten()[places]
    unsure = (~sure).nonzero().squeeze(1).cpu()
    graph_of = torch.searchsorted(ptr, unsure, right=True) - 1
    for graph in torch.unique(graph_of).tolist():
        start, stop = ptr[graph : graph + 2].tolist()
        own = unsure[graph_of == graph].to(x.device)
        near[own] = start + _by_sorting(x[own], x[start:stop], k)
    node = torch.arange(len(x), device=x.device).repeat_interleave(k)
    return torch.stack([near.sort(dim=-1).values.flatten(), node])


def _blocks(sizes: Tensor, ptr: Tensor, k: int, x: Tensor) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Graphs of about one size, largest first, as [B, P] nodes, which of them are real, and the rows to look at."""
    order, start = sizes.argsort(descending=True, stable=True), 0
    while start < len(order):
        largest = int(sizes[order[start]])
        width = max(largest, (k + _MORE) * x.shape[1])
        rows = max(1, _ELEMENTS[x.device.type] // width)
        graphs = order[start : start + max(1, rows // largest)]
        start += len(graphs)
        place = torch.arange(largest)
        real = place < sizes[graphs, None]
        nodes = (ptr[graphs, None] + torch.where(real, place, 0)).to(x.device)
        for first in range(0, largest, rows):
            yield nodes, real, slice(first, first + rows)


def _by_product(cloud: Tensor, real: Tensor, rows: slice, k: int) -> tuple[Tensor, Tensor]:
    """For some rows of clouds [B, P, D], their neighbours [B, R, k] in any order, and which are certain [B, R]."""
    _, points, width = cloud.shape
    centred = cloud - cloud.mean(dim=1, keepdim=True)
    squared = centred.square().sum(dim=-1)
    of_others, own = squared.masked_fill(~real, torch.inf)[:, None], squared[:, rows]
    rough = torch.baddbmm(of_others, centred[:, rows], centred.mT, alpha=-2)  # |x - y|² - |x|², rounded
    rough, candidates = rough.topk(min(k + _MORE, points), largest=False)
    near, certain = candidates[..., :k], torch.ones_like(own, dtype=torch.bool)
    if k == points:
        return near, certain
    reach = (rough[..., k - 1] + own).clamp_min(0)
    reach = reach + _bound(width, own, reach)  # k points are within it
    certain = rough[..., k] + own > reach + _bound(width, own, reach)
    close = (~certain & real[:, rows]).nonzero(as_tuple=True)
    of_close = candidates[close]
    differences = cloud[close[0][:, None], of_close].double() - cloud[:, rows][close][:, None].double()
    of_others = ~real[close[0][:, None], of_close]
    distances = differences.square_().sum(dim=-1).masked_fill_(of_others, torch.inf)
    distances, order = distances.sort(dim=-1)
    near = near.clone()
    near[close] = of_close.gather(-1, order[:, :k])
    decided = distances[:, k] > distances[:, k - 1]
    if candidates.shape[-1] < points:
        own, reach = own[close], distances[:, k - 1]
        decided &= rough[..., -1][close] + own > reach + _bound(width, own, reach)
    certain[close] = decided
    # no sum or product above has overflowed; the sorting is in float64
    finite = (squared < torch.finfo(cloud.dtype).max / 8).all(dim=1, keepdim=True)
    return near, certain & finite


def _bound(width: int, own: Tensor, reach: Tensor) -> Tensor:
    """Of the error of |x|² + |y|² - 2xy in ``width`` dimensions, for |x|² = ``own`` and |x - y|² up to ``reach``.

    The errors of |y|² and 2xy are below γ|y|² and 2γ|x||y|, and |y| is at most |x| + r: together γ(2|x| + r)². γ is the
    unit roundoff times the number of additions; here it is twice that, and a few more, for all that is left out. To it
    comes what underflows: of each of the 4 ``width`` products (2xy counts twice) at most the smallest normal number.
    """
    numbers = torch.finfo(own.dtype)
    relative = (width + 8) * numbers.eps * (2 * own.sqrt() + reach.sqrt()).square()
    return relative + 4 * (width + 8) * numbers.smallest_normal


def _by_sorting(points: Tensor, cloud: Tensor, k: int) -> Tensor:
    """The k of ``cloud`` [P, D] nearest to each of ``points`` [M, D], by comparison with all: [M, k]."""
    step = max(1, _ELEMENTS[cloud.device.type] // cloud.numel())
    found = []
    for start in range(0, len(points), step):
        distances = (cloud.double() - points[start : start + step, None].double()).square_().sum(dim=-1)
        found.append(distances.sort(dim=-1, stable=True).indices[:, :k])
    return torch.cat(found)


class StaticNeighbours:
    """The neighbours of each graph of a data set by its own features, found once for each k and kept on the CPU.

    Once in a process, that is: each job of a workflow finds those that it needs for itself. They take 2 bytes for each
    node and neighbour (4 where a graph has more than 32,767 nodes), of those graphs that were asked for: 0.5 GB for all
    of ModelNet40, 12,311 clouds of 1,024 points, with k = 20.
    """

    def __init__(self, data: GraphData) -> None:
        self._nodes, self._graphs = data.num_nodes, data.num_graphs
        self._type = torch.int16 if int(data.graph_ptr.diff().max()) < 1 << 15 else torch.int32
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # k: [N, k], counted from the graph's first node; [G] which

    def edges(self, points: "StaticPoints", k: int) -> Tensor:
        """As ``nearest_neighbours`` of a batch, whose ``points`` are unchanged."""
        x, ptr, nodes = points.x, points.ptr, points.nodes
        if k not in self._known:
            near, known = torch.empty(self._nodes, k, dtype=self._type), torch.zeros(self._graphs, dtype=torch.bool)
            self._known[k] = near, known
        near, known = self._known[k]
        first = ptr[:-1].repeat_interleave(ptr.diff())[:, None]
        if not known[points.ids].all():
            edges = nearest_neighbours(x, ptr, k)
            near[nodes] = (edges[0].view(-1, k).cpu() - first).to(self._type)
            known[points.ids] = True
            return edges
        neighbour = (near[nodes] + first).to(x.device)
        node = torch.arange(len(x), device=x.device).repeat_interleave(k)
        return torch.stack([neighbour.flatten(), node])


@dataclass(frozen=True)
class StaticPoints:
    """The features ``x`` [N, D] of a batch of whole graphs of a data set, as they are there.

    ptr: [G + 1] of the batch. ids: [G] its graphs, and nodes: [N] its nodes, as the data set numbers them.
    version: of ``x``, which torch counts up with each write; none of a tensor of inference mode, which has no count.
    """

    x: Tensor
    ptr: Tensor
    ids: Tensor
    nodes: Tensor
    static: StaticNeighbours
    version: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", None if self.x.is_inference() else self.x._version)

    def are(self, x: Tensor) -> bool:
        """Whether ``x`` is this very tensor, and no operation has written into it.

        Writes past torch's count of them are not seen: into ``x.data``, or into memory that ``x`` shares with a NumPy
        array or another library. A tensor that was made in inference mode has no count, so the answer is always no.
        """
        return x is self.x and self.version is not None and x._version == self.version

    def edges(self, k: int) -> Tensor:
        """See ``StaticNeighbours.edges``."""
        return self.static.edges(self, k)


_LAST: dict[str, StaticNeighbours] = {}  # of the data set that was last asked for, by its digest


def static_neighbours(data: GraphData) -> StaticNeighbours:
    """One for equal data: all runs of a process share it."""
    if data.digest not in _LAST:
        _LAST.clear()
        _LAST[data.digest] = StaticNeighbours(data)
    return _LAST[data.digest]
