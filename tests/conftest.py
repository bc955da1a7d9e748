"""Fixtures shared by the tests: the two graph libraries, and data small enough to read."""

import pytest

from distillbench.backends import get_backend, missing_reason

_WITHOUT_DGL = pytest.mark.skipif(missing_reason("dgl") is not None, reason="DGL is not installed")


@pytest.fixture(scope="session")
def one_thread():
    """One thread: reductions have one order, as in a job."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["pyg", pytest.param("dgl", marks=_WITHOUT_DGL)])
def backend(request, one_thread):
    """Each library in turn."""
    return get_backend(request.param)


@pytest.fixture(scope="session")
def backends(one_thread):
    """Both libraries: (pyg, dgl)."""
    if missing_reason("dgl"):
        pytest.skip("DGL is not installed")
    return get_backend("pyg"), get_backend("dgl")


@pytest.fixture(scope="session")
def data_of():
    """``data_of(task, clouds=False)``: eight graphs of different sizes, or one graph where the task is multiclass.

    Three classes or labels, which the features say something about; random symmetric edges, or none for clouds.
    """
    import torch

    from distillbench.data import GraphData, Split, symmetric_with_loops

    def make(task, *, clouds=False, sizes=(7, 5, 9, 6, 8, 10, 5, 6), features=4, classes=3):
        random = torch.Generator().manual_seed(1)
        if task == "multiclass":
            sizes = (sum(sizes),)
        nodes, ptr = sum(sizes), torch.tensor([0, *sizes]).cumsum(0)
        graph_of_node = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        x = torch.randn(nodes, features, generator=random)
        if task == "multilabel":
            y = (x[:, :classes] > 0.3).float()
        elif task == "multiclass":
            y = (torch.arange(nodes) * classes) // nodes
            x[:, 0] += y
        else:
            y = torch.arange(len(sizes)) % classes
            x[:, 0] += y[graph_of_node]
        linked = torch.rand(nodes, nodes, generator=random) < 0.2
        linked &= graph_of_node[:, None] == graph_of_node
        edges = symmetric_with_loops(*linked.nonzero().T, nodes)
        order = torch.randperm(nodes if task == "multiclass" else len(sizes), generator=random)
        first, second = (12, 24) if task == "multiclass" else (4, 6)
        return GraphData(
            x=x,
            edge_index=edges[:, :0] if clouds else edges,
            y=y,
            graph_ptr=ptr,
            task_name=task,
            setting="transductive" if task == "multiclass" else "inductive",
            num_classes=classes,
            split=Split(order[:first], order[first:second], order[second:]),
        )

    return make
