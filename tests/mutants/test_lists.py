"""The lists of planted faults fit the code and the tests that there are, and the page is of these lists."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("run.py"))
run = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
MUTANTS = run.mutants()


def test_every_fault_can_be_planted_and_every_test_is_there():
    assert len(MUTANTS) >= 80
    for mutant in MUTANTS:
        planted = mutant.planted((ROOT / mutant.file).read_text())
        if mutant.file.endswith(".py"):
            compile(planted, mutant.file, "exec")
        for test in mutant.tests:
            file, _, name = test.partition("::")
            text = (ROOT / file).read_text()
            assert not name or re.search(rf"^ *def {name.split('[')[0]}\(", text, re.MULTILINE), test


def test_the_page_has_every_fault_with_the_test_that_noticed_it():
    rows = run.rows_of(run.PAGE.read_text())
    assert list(rows) == [run._cell(mutant.fault) for mutant in MUTANTS]
    assert not [row for row in rows.values() if run.SURVIVED in row]


def test_a_fault_that_no_longer_fits_is_named():
    mutant = run.Mutant("room", "a fault", "x.py", "a", "b", ())
    assert mutant.planted("a = 1") == "b = 1"
    with pytest.raises(ValueError, match=r"room: a fault: its `old` is 2 times in x\.py"):
        mutant.planted("a = a")
