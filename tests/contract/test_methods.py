"""What holds for every method in ``methods/``, on both libraries, for every task it says it applies to.

A new file in the folder is tested without anything being added here. The checks are those of contract/checks.py.
"""

from pathlib import Path

import pytest

from distillbench.contract.check import Entry, entries_of, excuse, result_of
from distillbench.contract.checks import CHECKS
from distillbench.models.backends import missing_reason
from distillbench.params import ALL_TASKS
from distillbench.plugins import PluginError, available, declaration

METHODS = Path(__file__).parents[2] / "methods"
WITHOUT = {library: missing_reason(library) for library in ("pyg", "dgl")}


def collected():
    """Every check of every file but those it is excused from; of a file that cannot be read, the one that says so."""
    for name in available([METHODS]):
        path = METHODS / f"{name}.py"
        try:
            declared = declaration("method", path)
            entries = [entry for entry in entries_of(declared) if not excuse(declared, entry.check)]
        except PluginError:
            entries = [Entry(CHECKS[0])]
        for entry in entries:
            marks = [pytest.mark.skip(reason) for library in entry.libraries if (reason := WITHOUT[library])]
            where = [str(entry.case), *entry.libraries] if entry.case else []
            yield pytest.param(path, entry, id="-".join([name, entry.check.name, *where]), marks=marks)


@pytest.mark.parametrize("path, entry", list(collected()))
def test_every_method_keeps_the_contract(one_thread, path, entry):
    result = result_of(path, entry)
    assert result.status == "passed", result.reason


def test_the_shipped_methods_apply_to_every_task():
    shipped = {"supervised", "kd", "fitnet", "at", "lsp"}
    assert shipped <= set(available([METHODS]))
    assert all(declaration("method", METHODS / f"{name}.py").tasks == ALL_TASKS for name in shipped)


def test_the_first_methods_are_excused_from_nothing():
    for name in ("supervised", "kd", "fitnet", "at", "lsp", "lsp_official"):
        declared = declaration("method", METHODS / f"{name}.py")
        assert not any(excuse(declared, check) for check in CHECKS), name
