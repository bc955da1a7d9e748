"""On a SLURM cluster without accounting."""

import os
import re
import signal
from collections import Counter

import pytest

from tests.slurm.projects import STUDENTS, TABLE, TINY, slurm, table, wait_for

CLUSTER = {"CPUS": "2", "MEMORY_MB": "8000"}
SUPERVISED, HELD = STUDENTS


def jobs(project, rule):
    """SLURM's numbers of the jobs of a rule so far."""
    return re.findall(rf"submitted with SLURM jobid (\d+) \(log: \S*rule_{rule}/", project.output)


def count_trainings(project):
    """Have every training add its method to the file ``trainings``."""
    for method in TINY["methods"]:
        file = project.folder / f"methods/{method}.py"
        counting = f"""
    def prepare(self, setup):
        with open("trainings", "a") as file:
            file.write("{method}\\n")

    def terms(self, """
        file.write_text(file.read_text().replace("\n    def terms(self, ", counting, 1))


def running():
    """The methods whose students are trained by jobs that run now; a job's comment has its wildcards."""
    return re.findall(r"^R .*(supervised|held)", slurm("squeue", "--noheader", "--format", "%t %k"), re.MULTILINE)


def test_a_cancelled_job_is_tried_again_and_resumes_at_its_seed(project, quiet):
    """Fault: a running job is cancelled (scancel).

    Provoked: the job of three seeds is cancelled while it is made to wait in the second, after a checkpoint.
    Promised: it is submitted again by itself, the finished seed is not trained again, the second one goes on at its
    checkpoint, the table is that of a quiet run.
    """
    (project.folder / "go").unlink()
    run = project.start(HELD)
    wait_for((project.folder / HELD).with_name("seed-1.checkpoint.pt").exists, run)
    before = project.records()
    slurm("scancel", *jobs(project, "distill"))
    wait_for(lambda: "Trying to restart job" in project.output, run)
    (project.folder / "go").touch()
    project.finish(run)
    after = project.records()
    assert {name: after[name] for name in before} == before
    log = (project.folder / "results/logs/runs/digits/csr/gat/held/0.log").read_text()  # of the second job
    assert "seed 1 (run 1 of 2) begins" in log and "seed 1 (run 1 of 2): epoch 1 of" not in log
    assert "seed 2 (run 2 of 2): epoch 1 of" in log
    assert table(project) == table(quiet)


def test_a_node_is_drained_during_the_run(project, quiet):
    """Fault: a node is drained while jobs run.

    Provoked: the only node is set to drain while a job is made to wait, and back when that job has ended and another is
    pending.
    Promised: the running job ends, the others wait and then run, the table is that of a quiet run.
    """
    (project.folder / "go").unlink()
    run = project.start(TABLE, "--jobs=1")
    wait_for((project.folder / HELD).with_name("seed-0.json").exists, run)
    slurm("scontrol", "update", "nodename=node1", "state=drain", "reason=test")
    try:
        (project.folder / "go").touch()
        wait_for(lambda: slurm("sinfo", "--noheader", "--format", "%T").strip() == "drained", run)
        wait_for(lambda: "PD" in slurm("squeue", "--noheader", "--format", "%t"), run)
    finally:
        slurm("scontrol", "update", "nodename=node1", "state=resume")
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
    assert "exceeded memory limit" in (cluster / "log/node1.log").read_text()
    asked = [int(re.search(r"mem=(\d+)M", slurm("scontrol", "show", "job", number))[1]) for number in (first, *more)]
    assert len(asked) > 1 and asked == [500 * (n + 1) for n in range(len(asked))]
    assert table(project) == table(quiet)


def test_the_submitting_process_is_killed_and_started_again(project, quiet):
    """Fault: the submitting Snakemake process is killed (SIGKILL) while jobs run.

    Provoked: it is killed when one of two jobs has ended and the other is made to wait in the second of three seeds,
    and started again, so that the new job of these seeds runs beside the old one (seen in squeue).
    Promised: a job that is still running is waited for and what it trains is used: each seed is trained once (counted),
    the table is that of a quiet run.
    """
    supervised, held = project.folder / SUPERVISED, project.folder / HELD
    count_trainings(project)
    (project.folder / "go").unlink()
    run = project.start(*STUDENTS)
    wait_for(lambda: supervised.exists() and held.with_name("seed-0.json").exists(), run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    before = project.records()
    project.run("--unlock")
    again = project.start(*STUDENTS)
    wait_for(lambda: running().count("held") == 2, again)
    assert not held.exists()
    (project.folder / "go").touch()
    project.finish(again)
    after = project.records()
    assert {name: after[name] for name in before} == before
    assert Counter((project.folder / "trainings").read_text().split()) == {"supervised": 3, "held": 3}  # of seeds
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
