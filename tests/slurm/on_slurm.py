"""On a SLURM cluster."""

import os
import re
import signal
import time

import pandas as pd
import pytest
import yaml

from tests.slurm.projects import CPUS, TABLE, TINY, slurm
from tests.workflow.conftest import ROOT, Project

RUNS = "results/runs/digits/csr/gat"
STUDENTS = [f"{RUNS}/{method}/records-0.json" for method in TINY["methods"]]


def wait_for(condition, run, seconds=120):
    """Until the condition holds, while Snakemake runs."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return found


def jobs(project, rule):
    """SLURM's numbers of the jobs of a rule so far."""
    return re.findall(rf"submitted with SLURM jobid (\d+) \(log: \S*rule_{rule}/", project.output)


def count_trainings_of_lsp(project):
    """Have every training of LSP add a line to the file ``trainings``."""
    method = project.folder / "methods/lsp.py"
    counting = """
    def prepare(self, setup):
        with open("trainings", "a") as file:
            file.write("begun\\n")

    def terms(self, """
    method.write_text(method.read_text().replace("\n    def terms(self, ", counting, 1))


def table(project):
    """The bytes of the table of all records, made here."""
    if not (project.folder / TABLE).exists():
        Project(project.folder, project.environment).run(TABLE)
    return (project.folder / TABLE).read_bytes()


def test_the_smoke_config_runs_to_its_table_and_groups_ask_for_no_more_than_a_node_has(project):
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    (project.folder / "config/test.yaml").write_text(yaml.safe_dump(config))
    project.finish(project.start())
    table = pd.read_csv(project.folder / "results/smoke/tables/comparison.csv")
    assert (table["n_ok"] == 2).all() and set(table["backend"]) == {"pyg", "dgl"}
    assert (project.folder / "results/smoke/mlflow/synced.json").exists()
    number = re.findall(r"SLURM jobid (\d+) \(log: \S*group_tables", project.output)
    assert len(number) == 1  # tables, figures, report and MLflow are one job
    assert int(re.search(r"NumCPUs=(\d+)", slurm("scontrol", "show", "job", number[0]))[1]) <= CPUS


def test_a_cancelled_job_is_tried_again_and_resumes_at_its_seed(project, quiet):
    """Fault: a running job is cancelled (scancel).

    Provoked: the job of three seeds is cancelled when the first is finished and the second has a checkpoint.
    Promised: it is submitted again by itself, the finished seed is not trained again, the table is that of a quiet run.
    """
    folder = project.folder / RUNS / "lsp"
    run = project.start(*STUDENTS)
    wait_for(lambda: (folder / "seed-0.json").exists() and (folder / "seed-1.checkpoint.pt").exists(), run)
    before = project.records()
    running = [j for j in jobs(project, "distill") if "lsp" in slurm("scontrol", "show", "job", j)]
    slurm("scancel", running[-1])
    assert "Trying to restart job" in project.finish(run)
    after = project.records()
    assert {name: after[name] for name in before} == before
    assert table(project) == table(quiet)


def test_a_node_is_drained_during_the_run(project, quiet):
    """Fault: a node is drained while jobs run.

    Provoked: the only node is set to drain when the first job runs, and back when that has finished.
    Promised: the running job ends, the others wait and then run, the table is that of a quiet run.
    """
    node = slurm("sinfo", "--noheader", "--format", "%n").strip()
    run = project.start(*STUDENTS, "--jobs=1")
    wait_for(lambda: "R" in slurm("squeue", "--noheader", "--format", "%t"), run)
    slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        wait_for(lambda: slurm("sinfo", "--noheader", "--format", "%T").strip() == "drained", run)
        wait_for(lambda: "PD" in slurm("squeue", "--noheader", "--format", "%t"), run)
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    project.finish(run)
    assert table(project) == table(quiet)


def test_a_job_that_needs_more_memory_than_it_asked_for_gets_more(cluster, project, quiet):
    """Fault: a job needs more memory than its estimate and is killed for it.

    Provoked: the config estimates 500 MB for training, which torch alone exceeds.
    Promised: the job is submitted again with twice, then three times the memory; the table is that of a quiet run.
    """
    project.configure(**{**TINY, "resources": {"memory_mb": 500, "run_minutes": 1}})
    project.finish(project.start(STUDENTS[0], "--retries=9"))
    first, *more = jobs(project, "distill")
    assert "exceeded memory limit" in (cluster / "log/slurmd.log").read_text()
    asked = [int(re.search(r"mem=(\d+)M", slurm("scontrol", "show", "job", number))[1]) for number in (first, *more)]
    assert len(asked) > 1 and asked == [500 * (n + 1) for n in range(len(asked))]
    assert table(project) == table(quiet)


def test_the_submitting_process_is_killed_and_started_again(project, quiet):
    """Fault: the submitting Snakemake process is killed (SIGKILL) while jobs run.

    Provoked: it is killed when the first of three seeds is finished, and started again at once, its jobs still running.
    Promised: a job that is still running is waited for and what it trains is used: each seed is trained once (counted),
    the table is that of a quiet run.
    """
    folder = project.folder / RUNS / "lsp"
    count_trainings_of_lsp(project)
    run = project.start(*STUDENTS)
    wait_for(lambda: (folder / "seed-0.json").exists(), run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    before = project.records()
    project.run("--unlock")
    project.finish(project.start(*STUDENTS))
    after = project.records()
    assert {name: after[name] for name in before} == before
    assert (project.folder / "trainings").read_text().splitlines() == ["begun"] * 3  # of three seeds, one each
    assert table(project) == table(quiet)


@pytest.mark.parametrize(
    "estimate, options, reason",
    [
        ({}, ["--set-resources=distill:slurm_partition=gpus"], "invalid partition specified: gpus"),
        ({"memory_mb": 10**7}, [], "Memory specification can not be satisfied"),
    ],
    ids=["partition", "memory"],
)
def test_why_a_submission_was_rejected_is_said(project, estimate, options, reason):
    """Fault: SLURM rejects a submission.

    Provoked: a partition that does not exist, and more memory than any node has.
    Promised: SLURM's reason and the call are printed, and the run ends with an error.
    """
    project.configure(**{**TINY, "resources": {"run_minutes": 1, **estimate}})
    output = project.run(STUDENTS[0], "--retries=0", *options, succeeds=False)
    assert reason in output and "sbatch" in output
    assert not (project.folder / STUDENTS[0]).exists()
