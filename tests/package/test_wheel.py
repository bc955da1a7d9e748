"""What is installed from a wheel runs by itself, in an empty folder, outside any checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import distillbench

ROOT = Path(__file__).parents[2]
SHIPPED = ("Snakefile", "methods/lsp.py", "methods/_template.py", "models/_template.py", "datasets/digits.py",
           "datasets/_template.py",
           "config/smoke.yaml",
           "config/ablations/tap.yaml", "profiles/default/config.yaml", "workflow/rules/common.smk",
           "workflow/scripts/train.py", "workflow/report/workflow.rst")  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with wheel and sdist, built from what git knows or would add."""
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "source" / name)
    for what in ("sdist", "wheel"):
        code = f"from setuptools import build_meta; build_meta.build_{what}({str(folder)!r})"
        done = subprocess.run([sys.executable, "-c", code], cwd=folder / "source", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def test_wheel_and_sdist_hold_what_a_run_needs(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"distillbench/shipped/{name}" for name in SHIPPED} <= set(names)
    package, endings = ROOT / "workflow/distillbench", (".py", ".jinja", ".mplstyle", ".csv")
    modules = {f"distillbench/{f.relative_to(package)}" for f in package.rglob("*.*") if f.suffix in endings}
    assert modules <= set(names)
    assert not [name for name in names if re.search(r"(^|/)tests?/|\.pt$|\.venv", name)]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(SHIPPED) <= inside


def test_an_installed_wheel_runs_to_its_table_outside_any_checkout(built, tmp_path):
    """In an environment that sees the dependencies that are installed here, and no checkout."""
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "environment")}))
    python = tmp_path / "environment/bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(next(built.glob("*.whl")))], check=True)
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # not its .pth files: no checkout
    (folder := tmp_path / "empty folder").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DISTILLBENCH"))}

    def call(*arguments: str) -> str:
        command = [str(python.with_name("distillbench")), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    where = subprocess.run([str(python), "-c", "import distillbench; print(distillbench.__file__)"], cwd=folder,
                           env=environment, capture_output=True, text=True, check=True)  # fmt: skip
    assert where.stdout.strip() == str(site / "distillbench/__init__.py")
    assert "lsp" in call("list", "methods")
    call("new", "method", "my_own")
    assert "my_own" in call("plan", "smoke", "--method", "my_own")
    output = call("run", "smoke", "--backend", "csr", "--dataset", "digits", "--cores", "2")
    table = (folder / "results/smoke/tables/comparison.md").read_text()
    assert table in output
    assert {"supervised", "kd", "lsp"} <= set(re.findall(r"\w+", table))
    assert (folder / "results/smoke/report/index.html").is_file()


def test_the_version_stands_in_one_place():
    assert f"version: {distillbench.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {distillbench.__version__.partition('.dev')[0]}" in (ROOT / "CHANGELOG.md").read_text()
