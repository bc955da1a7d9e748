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
    """The small data that methods are checked on: ``data_of(task, clouds=False)``, see distillbench.trial."""
    from distillbench.trial import data_of

    return data_of
