"""A small finished run to report on, with everything a page may have to show, and rows of a comparison."""

import base64
import math
from pathlib import Path

import pandas as pd
import pytest

from distillbench.data.cards import write_card
from distillbench.plan.plan import make_plan
from distillbench.record import Record, write_shard
from distillbench.report.facts import facts_of
from distillbench.runs import runs_table, write_csv, write_runs
from distillbench.statistics import compare, libraries
from tests.cards import card_of

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)>&b"
REASON = 'loss is NaN"><script>alert(2)</script>'
PAIR = {"teacher": {"model": "gat", "hidden": 8, "heads": 2}, "student": {"model": "gat", "hidden": 2}}
CONFIG = {
    "seeds": 8,
    "backends": ["pyg", "dgl"],
    "datasets": {"digits": {"pairs": {"gat": PAIR}}, "synthetic": {"pairs": {"gat": PAIR}}},
    "methods": {"supervised": {}, "kd": {}, "lsp+kd": {"lsp": {"kernel": "cosine"}}},
}
UPS = {"teacher": 0.10, "supervised": 0.0, "kd": 0.05, HOSTILE: 0.002}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="300"><rect width="900" height="300"/></svg>'


NO_TEST = ("control", "skipped", "all failed", "too few seeds")


def compared(method, verdict, backend="pyg", **changes):
    """A row of a comparison on digits, in the columns that sentences are made of."""
    row = {"dataset": "digits", "pair": "gat", "backend": backend, "method": method, "role": "student"}
    row |= {"baseline": "supervised", "metric": "accuracy", "n_ok": 10, "n": 10, "n_pairs": 10, "mean": 0.88}
    row |= {"diff": 0.048, "ci_low": 0.014, "ci_high": 0.076, "verdict": verdict, "note": "", "resplit": True}
    row |= {"improved": 9, "collapsed": 0, "best_diff": -0.01, "best_low": -0.03, "best_high": -0.001, "delta": 0.01}
    p = 0.004 if verdict.startswith(("better", "worse")) else math.nan if verdict in NO_TEST else 0.3
    return row | {"p": p, "p_table": p} | changes


def controls(backend="pyg"):
    nothing = dict.fromkeys(("diff", "ci_low", "ci_high"), math.nan)
    return [
        compared("teacher", "control", backend, role="teacher", mean=0.925),
        compared("supervised", "control", backend, mean=0.832, n_pairs=0, **nothing),
    ]


def records_of(dataset, *, torch="2.13.0", broken=True):
    for backend in ("pyg", "dgl"):
        for method, up in UPS.items():
            for seed in range(8):
                failed = broken and method == HOSTILE and seed == 3 and backend == "pyg"
                role = "teacher" if method == "teacher" else "student"
                test = None if failed else 0.70 + 0.01 * (seed * 7 % 5) + up + 0.001 * (seed % 3)
                yield Record(
                    key=f"{dataset}/{backend}/{method}", dataset=dataset, backend=backend, pair="gat", method=method,
                    role=role, seed=seed, status="diverged" if failed else "ok", reason=REASON if failed else "",
                    task="multiclass", metric="accuracy", val=test, test=test, params=364, train_seconds=2.5,
                    split_sizes={"train": 50, "val": 300, "test": 1447},
                    environment={"python": "3.11.7", "torch": torch, "device": "cpu", "threads": 1},
                    started=f"2026-01-02T03:04:{seed:02d}.000+00:00", ended=f"2026-01-02T03:05:{seed:02d}.000+00:00",
                )  # fmt: skip


def write_results(folder, records):
    """Records, tables and data cards as a run leaves them."""
    records = list(records)
    for record in records:
        place = "teachers" if record.role == "teacher" else "runs"
        inside = f"{record.dataset}/{record.backend}/{record.pair}/{record.method}".removesuffix("/teacher")
        shard = folder / place / inside / "records-0.json"
        same = [r for r in records if r.key == record.key]
        write_shard(shard, same)
    tables = folder / "tables"
    runs = runs_table(records, list(UPS))
    write_runs(runs, tables / "runs.csv", tables / "runs.parquet")
    write_csv(compare.compare(runs), tables / "comparison.csv")
    write_csv(libraries.equivalence(runs), tables / "equivalence.csv")
    for dataset in pd.unique(runs["dataset"]):
        provenance = {"canonical": False, "remark": "a remark"}
        card = card_of(name=dataset, provenance=provenance, warnings=["3 of 64 features are the same at every node"])
        write_card(folder / "data" / dataset / "data.json", card)
    return folder


@pytest.fixture(scope="session")
def plan():
    return make_plan(CONFIG, ["config/own.yaml"], ROOT)


@pytest.fixture(scope="session")
def facts(plan):
    """Of a config with published results and six cells, too: everything in ``finished_run`` belongs to it."""
    facts = facts_of(plan)
    more = ["tables/reproduction.csv", "figures/across.png", "figures/across.svg"]
    return facts | {"shown": [*facts["shown"], *more]}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A results folder with two data sets, both libraries, one failed run, a hostile method name, all figures."""
    folder = tmp_path_factory.mktemp("report") / "results"
    write_results(folder, [*records_of("digits"), *records_of("synthetic")])
    names = ["digits", "synthetic", "pareto-digits", "libraries", "across", "curves/digits-pyg-gat"]
    for name in names:
        path = folder / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
        path.with_suffix(".svg").write_text(SVG if name != "synthetic" else SVG + " " * 100_000)
    (folder / "tables/profiles.csv").write_text(
        "dataset,pair,backend,role,model,parameters,latency_ms,latency_q25_ms,latency_q75_ms,throughput_per_second,"
        "throughput_of,peak_memory_mb,device\n"
        "digits,gat,pyg,student,gat,364,4.51,3.95,4.99,398697,nodes,1.4,cpu\n"
    )
    (folder / "tables/reproduction.csv").write_text(
        "dataset,backend,pair,source,method,quantity,published,ours,diff,diff_low,diff_high,verdict,reason\n"
        "digits,pyg,gat,yang2020,lsp,score,80.64,80.29,-0.35,-2.4,1.7,inconclusive,both are possible\n"
    )
    return folder
