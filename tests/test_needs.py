"""Skipped tests: said in one line with what would have to be there, and failures where all tests are to run."""

import os
import re
import subprocess
import sys

import pytest

from tests.needs import ROOT

TESTS = """
import pytest
from tests.needs import excused_in_ci

@pytest.fixture(scope="module")
def server():
    pytest.skip("needs a server")

@pytest.mark.parametrize("number", [1, 2])
def test_by_fixture(server, number): pass

@pytest.mark.skipif(True, reason="needs a browser")
def test_by_mark(): pass

@pytest.mark.skip("needs a browser")
def test_by_another_mark(): pass

def test_itself():
    pytest.skip("needs a browser")

def test_excused():
    pytest.skip(excused_in_ci("needs a GPU"))

@pytest.mark.xfail(reason="is wrong")
def test_expected_to_fail(): assert False

def test_passes(): pass
"""
MODULES = {
    "few": TESTS,
    "level": 'import pytest\npytest.skip("needs Windows", allow_module_level=True)\n',
    "package": 'import pytest\npytest.importorskip("no_such_package", reason="needs a package")\n',
}
REFUSED = "skipped where all tests are to run (DISTILLBENCH_ALL_TESTS)"


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("all_tests", ["", "1"])
def test_what_is_skipped_is_said_in_one_line_and_fails_where_all_tests_are_to_run(tmp_path, processes, all_tests):
    for name, text in MODULES.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    options = ["-q", "-rf", "-p", "no:cacheprovider", "-p", "tests.conftest", "-n", processes]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--continue-on-collection-errors", str(tmp_path)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'workflow'}", "DISTILLBENCH_ALL_TESTS": all_tests},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    said, counted = done.stdout.splitlines()[-2:]
    counts = {what.rstrip("s"): int(count) for count, what in re.findall(r"(\d+) (\w+)", counted.partition(" in ")[0])}
    if not all_tests:
        assert counts == {"passed": 1, "skipped": 8, "xfailed": 1}
        said = said.partition("Not tested here: ")[2].removesuffix(".").split(", ")
        some, browser, server, gpu = (f"needs a {what}" for what in ("package", "browser", "server", "GPU"))
        assert sorted(said) == sorted(
            [f"2 ({server})", f"3 ({browser})", f"1 ({gpu})", f"1 ({some})", "1 (needs Windows)"]
        )
    else:
        assert said == "Not tested here: 1 (needs a GPU)."
        assert counts["passed"] == counts["skipped"] == counts["xfailed"] == 1
        assert (counts["failed"], counts["error"]) == (1, 6)  # in a test, and before one
        for what in ("a server", "a browser", "a package", "Windows"):
            assert f"{REFUSED}: needs {what}" in done.stdout
