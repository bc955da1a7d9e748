"""Any config that can run, run"""

import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from distillbench.config.config import ConfigError
from distillbench.jobs.data import prepare_data
from distillbench.jobs.tables import collect, compare
from distillbench.jobs.train import train
from distillbench.plan.plan import make_plan
from distillbench.record import read_record
from tests.fuzz.conftest import cases

ROOT = Path(__file__).parents[2]
models = st.fixed_dictionaries(
    {"model": st.sampled_from(["gat", "gcn", "sage", "gin", "mlp"]), "hidden": st.integers(1, 5)},
    optional={"layers": st.integers(2, 3), "dropout": st.sampled_from([0.0, 0.5, 0.99])},
)
trainings = st.fixed_dictionaries(
    {"epochs": st.integers(1, 3)},
    optional={
        "learning_rate": st.sampled_from([1e-8, 0.01, 10.0, 1e30]), "patience": st.integers(1, 3),
        "weight_decay": st.sampled_from([0.0, 1.0, 1e10]),
    },
)  # fmt: skip
METHODS = ("kd", "lsp", "at", "fitnet", "cka", "rkd", "lsp+kd")
configs = st.fixed_dictionaries(
    {
        "seeds": st.integers(1, 2),
        "backends": st.just(["csr"]),
        "profile": st.just(False),
        "datasets": st.fixed_dictionaries({"digits": st.fixed_dictionaries({
            "params": st.fixed_dictionaries({"neighbours": st.integers(1, 4), "train_per_class": st.integers(1, 4)}),
            "pairs": st.fixed_dictionaries({"pair": st.fixed_dictionaries(
                {"teacher": models, "student": models, "training": trainings})}),
        })}),
        "methods": st.lists(st.sampled_from(METHODS), min_size=1, max_size=2, unique=True).map(
            lambda names: {key: {} for key in ["supervised", *names]}
        ),
    },
    optional={"protocol": st.sampled_from([{}, {"distill_nodes": "train"}, {"setting": "production"}, "official"])},
)  # fmt: skip
ENDS: list[str] = []


GCN = {"model": "gcn", "hidden": 4}
HOT = {"teacher": GCN, "student": GCN, "training": {"epochs": 3, "learning_rate": 1e30}}
DIVERGES = {
    "seeds": 1, "backends": ["csr"], "profile": False, "methods": {"supervised": {}, "kd": {}},
    "datasets": {"digits": {"params": {"neighbours": 2, "train_per_class": 2}, "pairs": {"pair": HOT}}},
}  # fmt: skip


@cases(20)
@example(config=DIVERGES)
@given(config=configs)
def one_case(config):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            plan = make_plan({**config, "results": str(folder / "results")}, ["fuzzed.yaml"], ROOT)
        except ConfigError as error:
            ENDS.append(f"refused: {error}")
            return
        prepare_data(str(plan.paths.root), file=plan.dataset_file("digits"), **plan.data_params("digits"))
        (cell,) = plan.cells
        for method in ("teacher", *plan.methods_of(cell)):
            teacher = method == "teacher"
            train(
                results=str(plan.paths.root), shard=0, planned_runs=plan.runs,
                params=plan.teacher_params(cell, 0) if teacher else plan.student_params(cell, method, 0),
                sources=list(plan.contents(plan.run_sources(cell, method))),
                execution=plan.config.execution.model_dump(),
            )  # fmt: skip
        runs = [str(folder / name) for name in ("runs.csv", "runs.parquet", "rows.npz")]
        collect(plan.expected(), plan.skipped(), plan.methods, *runs)
        outputs = {k: str(folder / f"comparison.{k}") for k in ("csv", "parquet", "html", "tex", "markdown")}
        outputs |= {k: str(folder / f"{k}.csv") for k in ("equivalence", "times", "across")}
        compare(runs[1], outputs, [], [], [], **plan.config.compare.model_dump(), rows=runs[2])
        table = pd.read_csv(outputs["csv"]).set_index("method")
        records = [read_record(file) for file in plan.paths.records()]
        assert set(table.index) == {record.method for record in records} == {"teacher", *plan.methods_of(cell)}
        for method, row in table.iterrows():
            mine = [record for record in records if record.method == method]
            good = [record.test for record in mine if record.status == "ok"]
            assert (row["n_ok"], row["n"]) == (len(good), config["seeds"])
            if good:
                np.testing.assert_allclose(row["mean"], np.mean(good), rtol=1e-12)
            assert all(record.reason for record in mine if record.status != "ok")
            ENDS.extend(record.status for record in mine)


def test_configs_that_can_run_end_in_a_table_of_their_records(one_thread):
    """Fault: a config that can run has senseless values: a learning rate of 1e30, dropout of 0.99 and the like.

    Provoked: 20 small configs of random models, methods, protocols and training are run to their tables (hypothesis).
    Promised: every run has a status and every status but ok a reason; counts and means are those of the records.
    """
    ENDS.clear()
    one_case()
    assert ENDS.count("ok") >= 20 and "diverged" in ENDS


def test_two_thousand_cases_are_tried():
    texts = [file.read_text() for file in Path(__file__).parent.glob("test_*.py")]
    assert sum(int(number) for text in texts for number in re.findall(r"^@cases\((\d+)\)$", text, re.MULTILINE)) >= 2000
