"""Snakemake that is stopped, or started twice"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd
import psutil
import pytest
import yaml

from tests.faults.conftest import CONFIG
from tests.workflow.conftest import HELD, Project, checkout, wait_for

TABLE = "results/tables/comparison.csv"
TINY = CONFIG | {"results": "results", "methods": {"supervised": {}, "held": {}, "kd": {}}}
FIRST = "results/runs/digits/csr/gat/held/seed-0.json"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Project:
    """The tiny config, run to its table when nothing happens."""
    project = checkout(tmp_path_factory.mktemp("quiet") / "project")
    (project.folder / "config/test.yaml").write_text(yaml.safe_dump(TINY))
    (project.folder / "methods/held.py").write_text(HELD)
    (project.folder / "go").touch()
    project.run(TABLE)
    return project


@pytest.fixture
def project(quiet, tmp_path) -> Iterator[Project]:
    """The same with its data and teachers, and nothing after them. What a failed test has left there is killed."""
    project = quiet.copy(tmp_path / "project")
    for name in ("runs", "tables"):
        shutil.rmtree(project.folder / "results" / name)
    yield project
    for process in processes_in(project):
        process.kill()


def started(project: Project) -> "subprocess.Popen[str]":
    """Snakemake in a process group of its own, as a terminal starts it, when a student is held after its first seed."""
    (project.folder / "go").unlink()
    with (project.folder / "output").open("w") as output:
        run = subprocess.Popen(
            project.command(TABLE), cwd=project.folder, env=project.environment,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            # which tests that run in the background of a shell would hand on as ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    wait_for(lambda: (project.folder / FIRST).exists() or run.poll() is not None, lambda: said(project))
    assert run.poll() is None, said(project)
    return run


def said(project: Project) -> str:
    return (project.folder / "output").read_text()


def processes_in(project: Project) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if project.folder.samefile(process.cwd()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_snakemake_is_stopped(quiet, project, how):
    """Fault: Snakemake is asked to end (SIGTERM), or interrupted (Ctrl-C), while jobs run.

    Provoked: the signal comes while a job is made to wait in the second of three seeds; Ctrl-C goes to all processes of
    the terminal.
    Promised: it ends with an error and leaves no process behind; the next run needs no unlocking, trains no finished
    seed again, and has the table of a quiet run.
    """
    run = started(project)
    if how == "Ctrl-C":
        os.killpg(run.pid, signal.SIGINT)
    else:
        run.terminate()
        wait_for(lambda: "Will exit after finishing currently running jobs" in said(project), lambda: said(project))
        (project.folder / "go").touch()
    assert run.wait(400) != 0, said(project)
    wait_for(lambda: not processes_in(project), lambda: processes_in(project))
    before = project.records()
    assert sum("/held/" in name for name in before) == (1 if how == "Ctrl-C" else 3)
    assert not (project.folder / TABLE).exists()
    (project.folder / "go").touch()
    project.run(TABLE)
    after = project.records()
    assert {name: after[name] for name in before} == before
    assert (project.folder / TABLE).read_bytes() == (quiet.folder / TABLE).read_bytes()


def test_snakemake_is_started_twice_in_one_folder(quiet, project):
    """Fault: a second Snakemake is started in a folder in which one is running; so is a run without it.

    Provoked: both are started while a job is made to wait in the second of three seeds; it goes on when the one has
    refused and the other waits for it.
    Promised: Snakemake refuses and says that the folder is locked; the other waits for what is being trained,
    says so in the job's log, and uses it. No seed is trained twice (counted), and the table is that of a quiet run.
    """
    run = started(project)
    assert "LockException" in project.run(TABLE, succeeds=False)
    command = [sys.executable, "-m", "distillbench", "run", "config/test.yaml", "--no-snakemake", "--cores", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    beside = subprocess.Popen(command, cwd=project.folder, env=project.environment, **pipes)
    logs = project.folder / "results/logs"
    waits = "digits/csr/gat/held: another process trains these seeds; waiting for it"
    wait_for(lambda: any(waits in log.read_text() for log in logs.glob("run/**/*.log")), lambda: said(project))
    (project.folder / "go").touch()
    output, _ = beside.communicate(timeout=400)
    assert beside.returncode == 0, output
    assert run.wait(400) == 0, said(project)
    lines = [line for log in logs.rglob("*.log") for line in log.read_text().splitlines()]
    begins = [line.split(" INFO ")[1].split(" (run ")[0] for line in lines if " begins" in line]
    students = [each for each in begins if "/teacher " not in each]
    assert len(students) == len(set(students)) == 9, students  # three methods, three seeds
    assert len(json.loads((project.folder / FIRST).with_name("records-0.json").read_text())) == 3
    assert (project.folder / TABLE).read_bytes() == (quiet.folder / TABLE).read_bytes()


RAISES = """from distillbench.plugin import Method


class Raises(Method):
    \"\"\"Has a mistake that shows in the second epoch.\"\"\"

    paper, tasks, requires = "mine2026", frozenset({"multiclass", "graph-multiclass"}), frozenset({"logits"})

    def terms(self, student, teacher, ctx):
        if ctx.epoch > 0:
            raise KeyError("no such <b>term</b> | $x_1$")
        return {"task": ctx.task_loss(student.logits)}
"""
# for one seed's teacher and students
SPLITS = """

    def split(self, data, seed):
        if seed == 3:  # the first ones are looked at when the data are prepared
            raise IndexError("no split")
        return super().split(data, seed)
"""


def test_runs_that_raise_are_recorded_and_the_rest_goes_on(quiet, project):
    """Fault: a teacher, or a student, ends with an error (an exception in the code of a plug-in, a model or a library).

    Provoked: a data set that has no split for one of four seeds; a method that raises in the second epoch.
    Promised: these runs have the status error with the exception as the reason, students of such a teacher are skipped
    with that reason, the rest goes on to the table. Tracebacks are in the jobs' logs. When the method's file is mended
    it alone is trained again.
    """
    datasets = {**TINY["datasets"], "fragile": TINY["datasets"]["digits"]}
    config = {**TINY, "seeds": 4, "datasets": datasets, "methods": {**TINY["methods"], "raises": {}}}
    (project.folder / "config/test.yaml").write_text(yaml.safe_dump(config))
    (project.folder / "methods/raises.py").write_text(RAISES)
    digits = (project.folder / "datasets/digits.py").read_text()
    (project.folder / "datasets/fragile.py").write_text(digits.rstrip() + SPLITS)
    output = project.run(TABLE)
    runs = pd.read_csv(project.folder / "results/tables/runs.csv").set_index(["dataset", "method", "seed"]).sort_index()
    status, reason = runs["status"], runs["reason"]
    for method in ("teacher", "supervised", "kd"):
        assert list(status.loc["digits", method]) == ["ok"] * 4
    assert list(status.loc["digits", "raises"]) == ["error"] * 4
    assert list(status.loc["fragile", "teacher"]) == ["ok", "ok", "ok", "error"]
    assert list(status.loc["fragile", "supervised"]) == ["ok", "ok", "ok", "error"]
    assert list(status.loc["fragile", "kd"]) == ["ok", "ok", "ok", "skipped"]
    assert reason["fragile", "teacher", 3] == "IndexError: no split"
    assert reason["fragile", "kd", 3] == "its teacher has the status error: IndexError: no split"
    assert reason["digits", "raises", 2] == "KeyError: 'no such <b>term</b> | $x_1$'"
    assert "digits/csr/gat/raises: 0 of 4 ok (error); seed 0: KeyError" in output
    assert f"Runs that ended with an error: {(status == 'error').sum()}. results/tables/runs.csv says" in output
    log = (project.folder / "results/logs/runs/digits/csr/gat/raises/0.log").read_text()
    assert log.count("Traceback") == 4 and "methods/raises.py" in log
    assert "seeds 0, 1, 2, 3 ended with an error" in (project.folder / "results/tables/comparison.md").read_text()
    assert "no such &lt;b&gt;term" in (project.folder / "results/tables/comparison.html").read_text()

    before = project.records()
    (project.folder / "methods/raises.py").write_text(RAISES.replace("ctx.epoch > 0", "False"))
    project.run(TABLE)
    after = project.records()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"runs/{d}/csr/gat/raises/seed-{s}.json" for d in datasets for s in range(4)}
    runs = pd.read_csv(project.folder / "results/tables/runs.csv").set_index(["dataset", "method", "seed"]).sort_index()
    assert list(runs["status"].loc["digits", "raises"]) == ["ok"] * 4
