"""What some tests need and a machine may not have.

A reason for a skip says what would have to be there: it is what the last line of `make test` repeats. In CI
(``DISTILLBENCH_ALL_TESTS=1``) a skipped test fails, lest something goes untested because a package has gone, unless its
reason is one of ``excused_in_ci``. See conftest.py.
"""

import os
import shutil
from pathlib import Path

import pytest

from distillbench.models.backends import missing_reason

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("DISTILLBENCH_SHARED", ROOT.parent / "shared")) / "data"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
POSTGRES = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)
EXCUSED = "; excused in CI"

WITHOUT_DGL = "dgl is not installed"
WITHOUT_POSTGRES = "needs PostgreSQL: apt-get install postgresql"
WITHOUT_RSYNC = "needs rsync: apt-get install rsync"
needs_dgl = pytest.mark.skipif(missing_reason("dgl") is not None, reason=WITHOUT_DGL)
needs_postgres = pytest.mark.skipif(POSTGRES is None, reason=WITHOUT_POSTGRES)
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs Chromium and chromedriver: apt-get install chromium chromium-driver"
)


def excused_in_ci(reason: str) -> str:
    """The reason for a skip that CI may have, too: what is missing cannot be had there, or another command tests it."""
    return reason + EXCUSED


def without(path: Path) -> str:
    """Why a test of a file of SHARED is skipped."""
    missing = path if SHARED.is_dir() else SHARED
    return f"needs the data {missing}, or DISTILLBENCH_SHARED in place of {SHARED.parent}"


def needs_file(path: Path) -> pytest.MarkDecorator:
    """Skips where a file or folder of SHARED is missing."""
    return pytest.mark.skipif(not path.exists(), reason=without(path))
