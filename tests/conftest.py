"""Fixtures shared by the tests: the two graph libraries, and data small enough to read; what becomes of a skip."""

import os
from collections import Counter

import pytest

from distillbench.models.backends import get_backend, missing_reason
from tests.needs import EXCUSED, WITHOUT_DGL, needs_dgl


@pytest.fixture(scope="session")
def one_thread():
    """One thread: reductions have one order, as in a job."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["pyg", pytest.param("dgl", marks=needs_dgl)])
def backend(request, one_thread):
    """Each library in turn."""
    return get_backend(request.param)


@pytest.fixture(scope="session")
def backends(one_thread):
    """Both libraries: (pyg, dgl)."""
    if missing_reason("dgl"):
        pytest.skip(WITHOUT_DGL)
    return get_backend("pyg"), get_backend("dgl")


@pytest.fixture(scope="session")
def data_of():
    """The small data that methods are checked on: ``data_of(task, clouds=False)``, see distillbench.contract.toys."""
    from distillbench.contract.toys import data_of

    return data_of


# Skipped tests


def _refused(reason: str) -> str | None:
    """What is wrong with a skip; None where it may be."""
    if not os.environ.get("DISTILLBENCH_ALL_TESTS") or reason.endswith(EXCUSED):
        return None
    return f"skipped where all tests are to run (DISTILLBENCH_ALL_TESTS): {reason}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
    """A skip by a mark, a fixture or the test itself that may not be is a failure."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, pytest.skip.Exception) and (refused := _refused(str(error.msg))):
        failed = pytest.fail.Exception(refused, pytrace=False)
        call.excinfo = pytest.ExceptionInfo.from_exception(failed.with_traceback(error.__traceback__))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """So is the skip of a whole module."""
    report = yield
    if report.skipped and (refused := _refused(reason_of(report))):
        report.outcome, report.longrepr = "failed", refused
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter):
    """The last line but pytest's own: what was not tested, and what would have to be there."""
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    if reasons := Counter(reason_of(report).removesuffix(EXCUSED) for report in skipped):
        parts = [f"{count} ({reason})" for reason, count in reasons.most_common()]
        terminalreporter.write_line(f"Not tested here: {', '.join(parts)}.")


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason of a skip."""
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
