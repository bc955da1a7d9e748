"""The graph libraries, and what does without one, each behind the same protocol. Imports none of them, nor torch."""

import importlib
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING

from distillbench.durations import spending

if TYPE_CHECKING:
    from distillbench.models.backends.base import Backend

MODULES = {"pyg": "torch_geometric", "dgl": "dgl", "csr": "torch"}


class BackendUnavailableError(ImportError):
    """The library of a backend is not installed or does not import."""


def missing_reason(name: str) -> str | None:
    """Why a backend cannot be used, as far as can be said without importing it; None where it is installed."""
    if importlib.util.find_spec(MODULES[name]) is None:
        return f"{MODULES[name]} is not installed"
    return None


def runs_on_gpus(name: str) -> bool:
    """Whether a backend could use a GPU, by its installed version: DGL's wheels for CUDA are called 1.1.3+cu118."""
    return name != "dgl" or (missing_reason("dgl") is None and "+cu" in importlib.metadata.version("dgl"))


def get_backend(name: str) -> "Backend":
    """The backend of that name, imported now. Raises BackendUnavailableError where its library cannot be imported."""
    try:
        with spending("imports"):
            module = importlib.import_module(f"distillbench.models.backends.{name}")
    except Exception as error:  # a library that is there but broken (wrong build, missing shared object) counts too
        raise BackendUnavailableError(f"{name}: {type(error).__name__}: {error}") from error
    backend: Backend = module.BACKEND
    return backend
