"""What a data set's file may give for a tensor: what is unambiguous is converted, the rest refused with its value.

Unambiguous are lists, NumPy arrays, pandas' tables, SciPy's and torch's sparse features, other widths of integers and
floats, and boolean masks of a part of a split.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MEND = "symmetric_with_loops(source, destination, num_nodes) of distillbench.plugin makes it so"


class DataError(ValueError):
    """Data that breaks the contract or a data file that cannot be trusted."""


def features(value: Any) -> Tensor:
    """[N, F] float32 of numbers in any form. Raises DataError."""
    tensor = _tensor(value, "x")
    if tensor.is_complex():
        raise DataError(f"x is {_said(tensor)}: features are real numbers")
    return tensor.to(torch.float32)


def edges(value: Any) -> Tensor:
    """[2, E] int64 of integers in any form. Raises DataError."""
    if _is_scipy(value) or (isinstance(value, Tensor) and value.layout != torch.strided):
        raise DataError(
            "edge_index is a sparse matrix: give its rows and columns, torch.stack([source, destination]) or, where "
            f"edges are missing, {MEND.partition(' makes')[0]}"
        )
    tensor = _integers(value, "edge_index", shape="[2, E]")
    if tensor.ndim == 2 and tensor.shape[1] == 2 and len(tensor) != 2:
        raise DataError(f"edge_index is {_said(tensor)}, must be [2, E]: edge_index.T")
    return tensor


def labels(value: Any, *, multilabel: bool) -> Tensor:
    """[M] int64, or [M, C] float32 of several labels, of numbers in any form. Raises DataError."""
    if multilabel:
        tensor = _tensor(value, "y")
        return tensor.to(torch.float32)
    tensor = _integers(value, "y", shape="[M]")
    if tensor.ndim == 2 and tensor.shape[1] == 1:
        raise DataError(f"y is {_said(tensor)}, must be [M] for one class a row: y.flatten()")
    return tensor


def pointers(value: Any) -> Tensor:
    """[G + 1] int64 of integers in any form. Raises DataError."""
    return _integers(value, "graph_ptr", shape="[G + 1]")


def part(value: Any, rows: int, what: str, name: str) -> Tensor:
    """[K] int64, the nodes or graphs of a part of a split: of integers in any form, or of a boolean mask.

    rows: how many nodes or graphs there are; what: which they are ("nodes"); name: the part's. Raises DataError.
    """
    where = f"the part {name!r} of the split"
    value = _of_pandas(value)
    if not isinstance(value, Tensor | np.ndarray | list | tuple | range):
        raise DataError(f"{where} is a {type(value).__name__}, must be the indices of {what}, or a mask of them")
    tensor = _tensor(value, where)
    if tensor.ndim == 0 and tensor.dtype != torch.bool:
        tensor = tensor.reshape(1)  # of one row, as mask.nonzero().squeeze() gives it
    if tensor.dtype == torch.bool:
        if tuple(tensor.shape) != (rows,):
            raise DataError(f"{where} is a mask of {list(tensor.shape)}, must be of all {rows} {what}: [{rows}]")
        return tensor.nonzero().flatten()
    if not len(tensor) and tensor.ndim == 1:
        return tensor.long()
    tensor = _integers(tensor, where, shape="[K]")
    if len(tensor) == rows > 2 and bool(((tensor == 0) | (tensor == 1)).all()):
        raise DataError(f"{where} is 0 and 1 for each of {rows} {what}: a mask is given as bool")
    if tensor.ndim != 1:
        raise DataError(f"{where} is {_said(tensor)}, must be [K] indices: flatten it")
    for wrong, said in ((tensor < 0, "is negative"), (tensor >= rows, f"is not one of {rows} {what}, 0 to {rows - 1}")):
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise DataError(f"{where} has {int(tensor[place])} at place {place}, which {said}")
    values, counts = torch.unique(tensor, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{where} has {int(values[counts > 1][0])} more than once")
    return tensor


def _integers(value: Any, where: str, *, shape: str) -> Tensor:
    tensor = _tensor(value, where)
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        missing = "; -1 for those that are missing" if bool(tensor.isnan().any()) else ""
        raise DataError(f"{where} is {_said(tensor)}, must be {shape} integers: .long(), if they are{missing}")
    return tensor.long()


def _tensor(value: Any, where: str) -> Tensor:
    """A plain tensor on the CPU, which remembers no gradients."""
    value = _of_pandas(value)
    if isinstance(value, np.ma.MaskedArray):
        if hidden := int(np.ma.getmaskarray(value).sum()):
            raise DataError(f"{where}: {hidden} of {value.size} values are masked: leave them out or fill them")
        value = value.data
    try:
        if _is_scipy(value):
            value = value.toarray()
        if isinstance(value, Tensor):
            dense = value if value.layout == torch.strided else value.to_dense()
            return dense.detach().cpu() if dense.requires_grad else dense.cpu()  # the very tensor, if it can be
        if isinstance(value, list | tuple | range):
            value = _of_sequence(value)
            if isinstance(value, Tensor):
                return value
        if isinstance(value, np.ndarray):
            whole = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
            return torch.from_numpy(whole if whole.flags.writeable else whole.copy())
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: {type(value).__name__} that is no array of numbers ({error})") from None
    raise DataError(f"{where} is a {type(value).__name__}, must be a tensor")


def _of_sequence(value: Sequence[Any]) -> Any:
    if value and all(isinstance(each, Tensor) for each in value):
        return torch.stack([each.detach().cpu() for each in value])
    if any(isinstance(each, np.ndarray) for each in value):
        return np.asarray(value)
    return torch.tensor(list(value)) if value else torch.empty(0, dtype=torch.int64)


def _of_pandas(value: Any) -> Any:
    if type(value).__module__.partition(".")[0] != "pandas":
        return value
    kinds = (
        {getattr(kind, "kind", "O") for kind in getattr(value, "dtypes", ())} if hasattr(value, "columns") else set()
    )
    # columns of numbers and of truth values together would be objects
    return value.to_numpy(dtype=np.float64) if len(kinds) > 1 and kinds <= set("biuf") else value.to_numpy()


def count(value: Any, where: str) -> int:
    """A whole number in any form: of Python, NumPy or torch. Raises DataError."""
    try:
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, bool) or number != int(number):
            raise ValueError
        return int(number)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"{where} is {value!r}, must be a whole number") from None


def _is_scipy(value: Any) -> bool:
    return type(value).__module__.startswith("scipy.sparse")


def _said(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
