"""Copies of tables, figures and report on object storage, by a storage plugin of Snakemake: a folder in place of S3."""

import shutil
from pathlib import Path

import pytest

from distillbench.config.config import ConfigError
from distillbench.config.yaml_files import copies_problem
from distillbench.plan.plan import make_plan
from tests.needs import WITHOUT_RSYNC
from tests.workflow.conftest import CONFIG, ROOT, Project, checkout

TINY = {
    **CONFIG, "backends": ["csr"], "methods": {"supervised": {}, "lsp": {}}, "seeds": 2,
    "datasets": {"digits": CONFIG["datasets"]["digits"]},
}  # fmt: skip
COPIED = ("tables", "figures", "report/index.html")


class Exporting(Project):
    """A checkout whose results are copied to the folder ``store`` beside it."""

    @property
    def store(self) -> Path:
        return self.folder.parent / "store"

    def change(self, **changes) -> None:
        self.configure(**{**TINY, "export": f"{self.store}/mine/", **changes})

    def copied(self) -> dict[str, bytes]:
        """What is in the store."""
        root = self.store / "mine"
        return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    def finished(self) -> dict[str, bytes]:
        """What the results hold of that which is to be copied."""
        results = self.folder / "results"
        files = [file for file in results.rglob("*") if str(file.relative_to(results)).startswith(COPIED)]
        return {str(file.relative_to(results)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exporting:
    """A small run with its copies. Copy it before changing anything."""
    if shutil.which("rsync") is None:
        pytest.skip(WITHOUT_RSYNC)
    made = checkout(tmp_path_factory.mktemp("export") / "project")
    project = Exporting(made.folder, made.environment)
    project.change()
    project.run()
    return project


@pytest.fixture
def project(exported, tmp_path) -> Exporting:
    """A copy of both, to change."""
    shutil.copytree(exported.store, tmp_path / "store")
    copy = exported.copy(tmp_path / "project")
    project = Exporting(copy.folder, copy.environment)
    project.change()
    project.run()
    return project


@pytest.fixture
def planned(tmp_path) -> Exporting:
    """A checkout in which nothing has run."""
    made = checkout(tmp_path / "project")
    return Exporting(made.folder, made.environment)


def test_tables_figures_and_report_are_copied_and_a_second_run_does_nothing(exported):
    assert exported.copied() == exported.finished()
    assert {"tables/comparison.csv", "figures/digits.png", "report/index.html"} <= exported.copied().keys()
    assert exported.jobs() == {}


def test_a_config_that_asks_for_no_copies_has_none(exported, tmp_path):
    copy = exported.copy(tmp_path / "project")
    copy.configure(**TINY)
    assert copy.jobs() == {}
    copy.configure(**TINY, export=str(tmp_path / "other"))
    assert copy.jobs() == {"export": 1}  # and where they go decides nothing else


def test_a_changed_table_is_copied_again(project):
    before = project.copied()
    project.change(compare={"baseline": "lsp"})
    project.run()
    assert project.copied() == project.finished()
    assert project.copied()["tables/comparison.csv"] != before["tables/comparison.csv"]
    (project.store / "mine/tables/comparison.csv").unlink()
    assert project.jobs() == {"export": 1}


def test_a_storage_that_refuses_costs_no_result(project):
    """Fault: the object storage refuses a copy.

    Provoked: a file is where the storage plugin is to make a folder, in a run that makes a table anew.
    Promised: the run fails, naming the copy; table, report and tracking are complete; the next run makes only copies.
    """
    project.change(compare={"baseline": "lsp"}, export=str(project.store / "file/mine"))
    (project.store / "file").touch()
    synced = project.folder / "results/mlflow/synced.json"
    before, tracked = project.finished(), synced.stat().st_mtime_ns
    output = project.run(succeeds=False)
    assert f"Failed to store output in storage {project.store}/file/mine/tables/" in output
    assert "Traceback" not in output
    assert project.finished()["tables/comparison.csv"] != before["tables/comparison.csv"]
    assert synced.stat().st_mtime_ns > tracked
    (project.store / "file").unlink()
    assert project.jobs() == {"export": 1}
    project.run()
    copies = project.store / "file/mine"
    assert {str(f.relative_to(copies)) for f in copies.rglob("*") if f.is_file()} == project.finished().keys()


def test_a_storage_without_its_plugin_is_refused(planned):
    """Fault: results are to be copied to a storage that no installed plugin knows.

    Provoked: a config with `export: s4://bucket/folder`.
    Promised: it is refused before anything runs, with the key, the value and the packages that there are.
    """
    planned.change(export="s4://bucket/folder")
    output = planned.run(succeeds=False)
    assert "config/test.yaml:\n  export: 's4://bucket/folder': No storage provider found" in output
    assert "pip install snakemake-storage-plugin-s3" in output and "Traceback" not in output
    assert not (planned.folder / "results").exists()


@pytest.fixture
def without_rsync(planned) -> Exporting:
    """The same, whose PATH has no rsync: nothing but what Snakemake's plugin for SLURM calls when it is imported."""
    planned.change()
    (planned.folder / "bin").mkdir()
    (planned.folder / "bin/which").symlink_to(shutil.which("which"))
    planned.environment["PATH"] = str(planned.folder / "bin")
    return planned


def test_a_folder_without_rsync_is_refused(without_rsync):
    """Fault: results are to be copied to a folder, and rsync, by which the storage plugin copies, is not installed.

    Provoked: a config with `export: /…/store/mine`, and a PATH without rsync.
    Promised: it is refused before anything runs, with the key, the value and the package to install.
    """
    output = without_rsync.run(succeeds=False)
    assert f"config/test.yaml:\n  export: '{without_rsync.store}/mine/': copies to a folder are made by rsync" in output
    assert "apt-get install rsync" in output and "export: null" in output and "Traceback" not in output
    assert not (without_rsync.folder / "results").exists()


@pytest.mark.parametrize("export", [None, "s3://bucket/folder", "gs://bucket/folder"])
def test_no_copies_and_those_to_an_address_need_no_rsync(export, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert copies_problem(export) is None
    assert copies_problem("/mnt/copies") is not None


def test_a_job_on_another_machine_needs_no_rsync(without_rsync):
    without_rsync.run("-n", "--mode", "remote")


@pytest.mark.parametrize(
    "folder, problem",
    [
        ("bucket/folder", "neither an address such as s3://bucket/folder nor an absolute folder"),
        (str(ROOT / "results/export"), "is in the results folder"),
        (str(ROOT / "docs"), "holds the project's own files"),
        ("/", "holds the project's own files"),
    ],
)
def test_a_folder_that_copies_would_damage_is_refused(folder, problem, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=rf"mine\.yaml:\n  export: '{folder}': .*{problem}"):
        make_plan({**TINY, "export": folder}, ["mine.yaml"], ROOT)
