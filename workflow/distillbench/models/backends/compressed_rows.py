"""Edges in compressed rows, and what is summed along them, without a tensor of edges × features.

The inner loops are torch's own. ``embedding_bag`` is the product of a sparse and a dense matrix: in float32 two to
three times as fast as MKL's on rows of 50 to 256 features, in float64 about as fast. ``sampled_addmm`` is a dense
product at the edges only. Rows are sorted, so each sum has one order, on GPUs too.
"""

import warnings
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

with warnings.catch_warnings():
    # torch says once per process that the layout is new; here is said which parts of it are used
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=False)


class Rows(NamedTuple):
    """Edges sorted by the row that they belong to.

    ptr: [R + 1], where each row begins. neighbour: [E], the other end of each edge. row: [E], its row. All are int32
    where they fit, which halves what is read beside the features.
    """

    ptr: Tensor
    neighbour: Tensor
    row: Tensor

    @property
    def degrees(self) -> Tensor:
        """[R]: edges of each row."""
        return self.ptr.diff()


def compressed(row: Tensor, neighbour: Tensor, num_rows: int) -> tuple[Rows, Tensor | None]:
    """Edges in any order, as rows, and the place [E] int64 that each had; None where they were sorted already.

    Args:
        row, neighbour: [E] integers; the rows are in 0 … num_rows - 1, which is not checked.
    """
    dtype = smallest(max(len(row), num_rows))
    row, neighbour, order = row.to(dtype).contiguous(), neighbour.to(dtype).contiguous(), None
    if not bool((row[1:] >= row[:-1]).all()):
        row, order = row.sort(stable=True)
        neighbour = neighbour[order]
    ptr = torch.searchsorted(row, torch.arange(num_rows + 1, device=row.device, dtype=dtype)).to(dtype)
    return Rows(ptr, neighbour, row), order


def smallest(largest: int) -> torch.dtype:
    """The type for indices that come up to ``largest``."""
    return torch.int32 if largest < 2**31 else torch.int64


def sums(side: Rows, x: Tensor, weights: Tensor | None = None) -> Tensor:
    """[R, D]: by row, the sum of ``x`` [M, D] at its neighbours, times ``weights`` [E]."""
    if weights is not None:
        weights = weights.to(x.dtype)
    found: Tensor = F.embedding_bag(
        side.neighbour,
        x.detach().contiguous(),
        side.ptr,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )
    return found


def products(side: Rows, left: Tensor, right: Tensor) -> Tensor:
    """[E]: left_row · right_neighbour at every edge, of ``left`` [R, D] and ``right`` [M, D]."""
    edges, rows, columns = len(side.row), len(left), len(right)
    if edges == 0:  # torch takes no such sample
        return left.new_zeros(0)
    if edges > rows * columns:  # nor one with more entries than the matrix: then every pair, and each edge's from there
        pairs = torch.arange(rows * columns, device=left.device, dtype=side.ptr.dtype)
        ptr = torch.arange(rows + 1, device=left.device, dtype=side.ptr.dtype) * columns
        return products(Rows(ptr, pairs % columns, pairs // columns), left, right)[side.row * columns + side.neighbour]
    sample = torch.sparse_csr_tensor(
        side.ptr, side.neighbour, left.new_zeros(edges), (rows, columns), check_invariants=False
    )
    found: Tensor = torch.sparse.sampled_addmm(sample, left, right.T, beta=0.0).values()
    return found


def reduced(values: Tensor, side: Rows, how: Literal["max", "sum"]) -> Tensor:
    """[R]: ``values`` [E] reduced by row."""
    return torch.segment_reduce(values, how, offsets=side.ptr, unsafe=True)
