"""What a plug-in imports, all of it from here: ``from distillbench.plugin import Context, Method, Parameters``.

Methods and data sets, in this repository or anybody's, know this module and no other of distillbench's. A name is
loaded when it is asked for: what a declaration uses (Parameters, Range and all else of distillbench.params) comes
without torch.
"""
# ruff: noqa: F401

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillbench.data import ogb
    from distillbench.data.archives import Files, downloaded, given, sha256
    from distillbench.data.clouds import augmented, cloud_data, clouds, reduced, with_validation
    from distillbench.data.graph_data import DataError, Dataset, GraphData, Split, symmetric_with_loops
    from distillbench.data.heterophilous import HeterophilousGraph
    from distillbench.data.readers import ShchurGraph, planetoid, split_as_published, split_per_class
    from distillbench.data.tasks import Task
    from distillbench.distillation.blocks import sum_over_rows
    from distillbench.distillation.edge_products import unit_rows
    from distillbench.distillation.method import Context, Dims, Method, Setup
    from distillbench.distillation.structure import local_structure, structure_divergence, union_edges
    from distillbench.models.backends.base import Backend, Graph
    from distillbench.models.gnn import Model, Output, initialise
    from distillbench.params import (
        ALL_TASKS,
        NODE_CLASSES,
        SINGLE_LABEL_TASKS,
        Choice,
        Direction,
        Kernel,
        LayerPair,
        LayerPairs,
        Parameters,
        Range,
        Reduction,
        Requirement,
        Setting,
        Splits,
        TaskName,
    )
    from distillbench.seeds import derive, generator

# the block above is for editors and type checkers, and read here, so that a name stands in one place
_HOMES = {
    alias.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("distillbench")
    for alias in node.names
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"distillbench.plugin has no {name!r}; it has {', '.join(sorted(_HOMES))}")
    home = importlib.import_module(_HOMES[name])
    if not hasattr(home, name):
        importlib.import_module(f"{home.__name__}.{name}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
