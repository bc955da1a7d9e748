"""Sums over nodes of what each has to do with all the others, without a matrix of all pairs.

A loss over pairs or triples of nodes is mostly the sum, over nodes i, of a function of row i and of all rows. Here such
a sum and its gradient are computed together, a block of rows at a time: what autograd keeps for a block is gone before
the next one begins. Nothing is computed twice, and a block that fits the cache is not slower than the whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ELEMENTS = 1 << 20  # of one tensor of a block: 4 MB in float32
_LARGER = 4  # times as many, at most, where blocks have few rows
_ROWS = 256  # so many are products enough for what is read and added for a block


def sum_over_rows(
    term: Callable[..., Tensor], by_row: Sequence[Tensor], whole: Sequence[Tensor], *, width: int
) -> Tensor:
    """Σ term(a block of rows of each of ``by_row``, all of each of ``whole``) over blocks that make up all rows.

    Args:
        term: the summand, a scalar that is itself a sum over the rows of its block, so that blocks do not matter. Of
            tensors that require gradients it may read its arguments only.
        by_row: tensors with equally many rows, [n, ...], at least one. whole: any others. Those that do not require
            gradients (numbers of nodes, a teacher's features) get none.
        width: elements, for each row, of the largest tensor that ``term`` makes. Blocks are so large that it has a
            million elements. Every block reads ``whole`` and adds to its gradient: where that is larger, a block of
            fewer than 256 rows has up to four million. A single row is never divided.

    Returns:
        A scalar of the term's type, summed up in float64. It can be differentiated once; its gradient is ready when it
        is, and held until then: as much memory as the tensors that require it.
    """
    width = max(1, width)
    size = max(_ELEMENTS, min(sum(each.numel() for each in whole), _ROWS * width, _LARGER * _ELEMENTS))
    rows = max(1, size // width)
    return _SumOverRows.apply(term, rows, len(by_row), *by_row, *whole)  # type: ignore[no-any-return, no-untyped-call]


class _SumOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, term: Callable[..., Tensor], rows: int, split: int, *tensors: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[3:]
        grads = [torch.zeros_like(each) if need else None for each, need in zip(tensors, needed, strict=True)]
        places = [number for number, need in enumerate(needed) if need]
        whole = [each.detach().requires_grad_(need) for each, need in zip(tensors[split:], needed[split:], strict=True)]
        total, value = torch.zeros((), dtype=torch.float64, device=tensors[0].device), None
        for start in range(0, len(tensors[0]), rows):
            part = slice(start, start + rows)
            leaves = [
                each[part].detach().requires_grad_(need) for each, need in zip(tensors[:split], needed, strict=False)
            ] + whole
            with torch.enable_grad():
                value = term(*leaves)
            total += value.detach()
            if not places:
                continue
            found = torch.autograd.grad(value, [leaves[place] for place in places], allow_unused=True)
            for place, grad in zip(places, found, strict=True):
                into = grads[place]
                if grad is not None and into is not None:
                    (into[part] if place < split else into).add_(grad)
        ctx.grads = grads
        return total if value is None else total.to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if each is None else each * grad.to(each.dtype) for each in ctx.grads]
        return (None, None, None, *scaled)
