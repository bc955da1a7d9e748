"""On a SLURM cluster of two nodes with accounting, whose controller forgets finished jobs soon."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import yaml

from tests.slurm.projects import TINY, slurm, wait_for
from tests.workflow.conftest import ROOT

CPUS = 2
CLUSTER = {"NODES": "2", "CPUS": str(CPUS), "MEMORY_MB": "6000", "ACCOUNTING": "1", "MIN_JOB_AGE": "2"}
PROFILES = [f"results/profiles/digits/csr/gat/{role}.json" for role in ("teacher", "student")]


def accounted(project, what, fields):
    """Of each job that Snakemake said it has submitted for a rule or group, what sacct knows."""
    numbers = re.findall(rf"SLURM jobid (\d+) \(log: \S*{what}", project.output)
    found = slurm(
        "sacct", "--allocations", "--noheader", "--parsable2", f"--format={fields}", f"--jobs={','.join(numbers)}"
    )
    rows = [line.split("|") for line in found.splitlines()]
    assert numbers and len(rows) == len(numbers)
    return rows


def test_the_smoke_config_runs_to_its_table_on_both_nodes_and_groups_ask_for_no_more_than_a_node_has(project):
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    (project.folder / "config/test.yaml").write_text(yaml.safe_dump(config))
    project.finish(project.start("--slurm-status-command=sacct"))
    table = pd.read_csv(project.folder / "results/smoke/tables/comparison.csv")
    assert (table["n_ok"] == 2).all()
    assert {name for joined in table["backend"] for name in joined.split("+")} == {"pyg", "dgl"}
    assert (project.folder / "results/smoke/mlflow/synced.json").exists()
    trained = accounted(project, "rule_distill/", "State,NodeList")
    assert len(trained) == 12 and {state for state, _ in trained} == {"COMPLETED"}
    assert {node for _, node in trained} == {"node1", "node2"}
    ((cpus,),) = accounted(project, "group_tables", "AllocCPUS")  # tables, figures, report and MLflow are one job
    assert int(cpus) <= CPUS


def test_a_profile_has_a_node_for_itself_and_accounting_is_away_for_a_while(cluster, project):
    """Fault: SLURM's accounting does not answer (slurmdbd is down).

    Provoked: slurmdbd is ended while a job runs, and started again after 15 seconds; finished jobs are forgotten by the
    controller, so that squeue cannot be asked instead.
    Promised: the job is asked after until accounting answers again, and its result is used.
    """
    project.configure(**{**TINY, "profile": True})
    run = project.start(*PROFILES, "--set-threads=profile=1")
    wait_for(lambda: "R" in slurm("squeue", "--noheader", "--format", "%t"), run)
    pid = int((cluster / "run/slurmdbd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), run)
    time.sleep(15)
    places = {"SLURM_CONF": str(cluster / "slurm.conf"), "MYSQL_UNIX_PORT": str(cluster / "run/mariadb.socket")}
    subprocess.run(["slurmdbd"], check=True, env={**os.environ, **places})
    output = project.finish(run)
    assert "Falling back to 'sacct'" in output  # the profile says squeue
    assert accounted(project, "rule_profile/", "State,AllocCPUS") == [["COMPLETED", str(CPUS)]]
    assert all((project.folder / file).exists() for file in PROFILES)
