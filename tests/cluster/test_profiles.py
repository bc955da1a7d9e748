"""What each rule asks of a batch system or a pod, by dry runs with the profiles."""

import re

import pytest
import yaml

from distillbench.plan.figures import FIGURES
from tests.cluster.test_kubernetes import snakemake

PAIR = {"teacher": {"model": "gat", "hidden": 8, "heads": 2}, "student": {"model": "gat", "hidden": 2}}
CONFIG = {
    "seeds": 4,
    "backends": ["pyg", "dgl"],
    "datasets": {
        "digits": {
            "resources": {"memory_mb": 4000, "run_minutes": 20},
            "pairs": {"gat": {**PAIR, "resources": {"memory_mb": 6000, "gpus": 1}}},
        },
        "synthetic": {"resources": {"memory_mb": 3500}, "pairs": {"gat": PAIR}},
    },
    "methods": {"supervised": {}, "lsp": {}},
    "tune": {"trials": 3, "seeds": 2},
    "execution": {"seeds_per_job": 2},
}
# (rule, data set, backend): memory in MB, minutes, GPUs
TRAINS = {
    ("dataset", "digits", None): (4000, 30, 0),
    ("dataset", "synthetic", None): (3500, 30, 0),
    ("tuning_teacher", "digits", "pyg"): (6000, 5 + 2 * 20, 1),
    ("tuning_teacher", "synthetic", "pyg"): (3500, 5 + 2 * 10, 0),
    ("tune", "digits", None): (6000, 5 + 3 * 2 * 20, 1),
    ("tune", "synthetic", None): (3500, 5 + 3 * 2 * 10, 0),
} | {
    (rule, dataset, backend): (memory, 5 + runs * minutes, gpus if backend == "pyg" else 0)  # no GPUs for DGL
    for dataset, memory, minutes, gpus in (("digits", 6000, 20, 1), ("synthetic", 3500, 10, 0))
    for rule, runs in (("teacher", 2), ("distill", 2), ("profile", 4), ("structure_figure", 1))
    for backend in ("pyg", "dgl")
}
MINUTES = {
    "compare": 10, "collect": 5, "profiles": 5, "tuning_table": 5, "pareto": 5, "report": 5, "reproduce": 5,
    "track": 30,
} | {f"{figure.module}_figure": figure.minutes for figure in FIGURES}  # fmt: skip
TARGETS = {"all", "structure_figures"}  # rules that run nothing
NOT_IN_ALL = ["structure_figures", "results/figures/across.png", "results/tables/reproduction.csv"]


def planned(folder, profile, *options):
    """The resources of every job by (rule, data set, backend), None where the rule has no such wildcard."""
    (folder / "my.yaml").write_text(yaml.safe_dump(CONFIG))
    done = snakemake(
        folder, "all", *NOT_IN_ALL, "--workflow-profile", f"profiles/{profile}", "--configfile", "my.yaml",
        "--cores", "4", "--dry-run", *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for job in re.split(r"^ *rule (?=\w+:$)", done.stdout, flags=re.MULTILINE)[1:]:
        rule = job.partition(":")[0]
        lines = dict(re.findall(r"^ +(wildcards|resources): (.*)$", job, re.MULTILINE))
        wildcards, resources = (
            dict(entry.split("=", 1) for entry in lines.get(name, "").split(", ") if entry)
            for name in ("wildcards", "resources")
        )
        key = (rule, wildcards.get("dataset"), wildcards.get("backend"))
        assert found.setdefault(key, resources) == resources
    return {key: resources for key, resources in found.items() if key[0] not in TARGETS}


def asked(resources):
    return int(resources["mem_mb"]), int(resources["runtime"]), int(resources.get("gpu", 0))


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_every_job_asks_for_the_estimates_of_its_data_set_and_pair(tmp_path, profile):
    jobs = planned(tmp_path, profile)
    others = {key: (3000, MINUTES[key[0]], 0) for key in jobs if key not in TRAINS}
    assert {rule for rule, *_ in others} == set(MINUTES)
    assert {key: asked(resources) for key, resources in jobs.items()} == TRAINS | others


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_the_second_attempt_at_any_job_asks_for_twice_the_memory_and_time(tmp_path, profile):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first, second = planned(tmp_path / "first", profile), planned(tmp_path / "second", profile, "--attempt=2")
    twice = {
        key: (2 * memory, 2 * minutes, gpus)
        for key, (memory, minutes, gpus) in zip(first, map(asked, first.values()), strict=True)
    }
    assert {key: asked(resources) for key, resources in second.items()} == twice


def test_a_partition_given_to_some_rules_takes_nothing_from_the_others(tmp_path):
    jobs = planned(tmp_path, "slurm", "--set-resources", "teacher:slurm_partition=gpu", "distill:slurm_partition=gpu")
    partitions = {rule: resources.get("slurm_partition") for (rule, *_), resources in jobs.items()}
    assert {rule for rule, partition in partitions.items() if partition == "gpu"} == {"teacher", "distill"}
    assert set(partitions.values()) == {"gpu", None}
    assert {rule for (rule, *_), resources in jobs.items() if resources.get("slurm_extra") == "--exclusive"} == {
        "profile"
    }
    assert {rule: asked(resources)[1] for (rule, *_), resources in jobs.items() if rule in MINUTES} == MINUTES
