"""Profiles: figures that mean what they say, measured twice, and named where the two disagree."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from distillbench.config.config import Training
from distillbench.data.graph_data import write_data
from distillbench.jobs.tables import collect_profiles
from distillbench.models.gnn import GNN, canonical_state
from distillbench.plan.plan import make_plan
from distillbench.plugins import load
from distillbench.profiling import profile as profiling
from distillbench.profiling.measure import Pass, _one_graph, block_times_ms, epoch_seconds, limited, measure
from distillbench.profiling.profile import combined, profile_pair
from distillbench.record import RecordError
from distillbench.tables.profiles import COLUMNS
from distillbench.training.fit import fit

ROOT = Path(__file__).parents[2]
NODES, FEATURES, CLASSES = 50, 6, 3  # of the small data
DGCNN = {"model": "dgcnn", "widths": [4], "embedding": 4, "k": 3}


def measured(small, spec, backend, data=None, **options):
    inputs, split = small.inputs_of(data or small.ring(), backend)
    return measure(small.model_of(spec, backend), inputs, split, **options)


# one pass


def test_a_student_without_a_graph_is_measured_without_one(small, backend, monkeypatch):
    facts = measured(small, {"model": "mlp", "hidden": 4}, backend).facts
    assert facts["reads_graph"] is False and facts["batch_edges"] == facts["edge_flops"] == 0
    assert measured(small, {"model": "gcn", "hidden": 4}, backend).facts["reads_graph"] is True
    forward = GNN.forward
    monkeypatch.setattr(GNN, "forward", lambda self, graph, x: (graph.edge_index, forward(self, graph, x))[1])
    with pytest.raises(AttributeError, match="edge_index"):  # it would have been seen
        measured(small, {"model": "mlp", "hidden": 4}, backend)


def test_counts_of_a_gat_by_hand(small, backend):
    heads, width = 2, 4
    facts = measured(small, {"model": "gat", "hidden": width, "heads": heads, "residual": False}, backend).facts
    hidden, out = heads * width, heads * CLASSES
    assert facts["batch_edges"] == 3 * NODES and facts["batch_nodes"] == NODES
    assert facts["dense_flops"] == 2 * NODES * (FEATURES * hidden + hidden * out)
    assert facts["edge_flops"] == 2 * 3 * NODES * (hidden + out)
    assert facts["parameters"] == FEATURES * hidden + 2 * hidden + hidden * out + 2 * out
    assert facts["weights_bytes"] == 4 * facts["parameters"]


def test_the_size_on_disk_is_that_of_the_file_a_run_saves(small, backend, tmp_path):
    spec = {"model": "gin", "hidden": 16}
    torch.save(canonical_state(small.model_of(spec, backend)), tmp_path / "weights.pt")
    facts = measured(small, spec, backend).facts
    assert facts["file_bytes"] == pytest.approx((tmp_path / "weights.pt").stat().st_size, rel=0.02)  # the file's name
    assert facts["file_bytes"] > facts["weights_bytes"]


def test_inference_is_in_evaluation_mode_and_without_autograd(small, backend, monkeypatch):
    seen = []
    forward = GNN.forward

    def watched(self, graph, x):
        if not torch.is_grad_enabled():
            seen.append((self.training, torch.is_inference_mode_enabled()))
        return forward(self, graph, x)

    monkeypatch.setattr(GNN, "forward", watched)
    model = small.model_of({"model": "gcn", "hidden": 4}, backend).train()
    inputs, split = small.inputs_of(small.ring(), backend)
    measure(model, inputs, split)
    assert set(seen) == {(False, True)}
    assert len(seen) > 10


def test_a_transductive_batch_is_the_one_graph_and_is_measured_once(small, backend):
    once = measured(small, {"model": "gcn", "hidden": 4}, backend)
    assert "graph_latency_ms" not in once.samples and once.facts["one_graph"] is True
    figures = combined([once, once])
    assert figures["graph_latency_ms"] == figures["latency_ms"]
    assert figures["graph_latency_q75_ms"] == figures["latency_q75_ms"]
    assert figures["graph_nodes"] == figures["batch_nodes"] == NODES


def test_one_graph_of_several_is_measured_by_itself(small, backend):
    found = measured(small, DGCNN, backend, small.clouds())
    assert (found.facts["batch_graphs"], found.facts["batch_nodes"], found.facts["graph_nodes"]) == (4, 32, 8)
    assert found.facts["one_graph"] is False and len(found.samples["graph_latency_ms"]) > 0
    assert found.facts["throughput_of"] == "graphs" and found.facts["throughput_units"] == 4


def test_the_one_graph_is_the_training_graph_of_median_size(small, backend):
    data = replace(small.clouds(), graph_ptr=torch.tensor([0, 3, 12, 16, 30, 40, 48]))
    inputs, split = small.inputs_of(data, backend)
    assert split.train.tolist() == [0, 1, 2, 3]  # of 3, 9, 4 and 14 points
    one = _one_graph(inputs, split)
    assert (one.graph.num_nodes, one.graph_ids.tolist()) == (4, [2])


def test_a_student_is_measured_as_deployed_too(small, backend):
    found = measured(small, {"model": "mlp", "hidden": 4}, backend, deploy=True)
    for form in ("exported", "onnx"):
        assert found.facts[f"{form}_status"] == "ok" and found.facts[f"{form}_difference"] <= 1e-5
        assert min(found.samples[f"{form}_latency_ms"]) > 0
    found = measured(small, DGCNN, backend, small.clouds(), deploy=True)
    # its neighbour search depends on the data: no program of fixed operations, and no ONNX for what is no MLP
    assert found.facts["exported_status"] != "ok" and "onnx_status" not in found.facts
    assert "exported_latency_ms" not in found.samples
    assert "exported_status" not in measured(small, {"model": "mlp", "hidden": 4}, backend).facts


def test_energy_is_measured_where_it_is_asked_for(small, backend, monkeypatch):
    from distillbench.profiling.energy import Energy

    asked = []
    monkeypatch.setattr(
        "distillbench.profiling.measure.energy_of", lambda run, country: asked.append(country) or Energy("ok", 0.5)
    )
    assert "energy_joules" not in measured(small, {"model": "mlp", "hidden": 4}, backend).samples
    found = measured(small, {"model": "mlp", "hidden": 4}, backend, energy="DEU")
    assert asked == ["DEU"] and found.samples["energy_joules"] == [0.5]
    monkeypatch.setattr("distillbench.profiling.measure.energy_of", lambda *_: Energy("codecarbon is not installed"))
    found = measured(small, {"model": "mlp", "hidden": 4}, backend, energy="DEU")
    assert "energy_joules" not in found.samples and found.facts["energy_status"] == "codecarbon is not installed"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("[enforce fail] can't allocate memory: 9")]
)
def test_figures_that_were_found_before_memory_ended_stay(small, backend, monkeypatch, error):
    def timed(*_):
        raise error

    monkeypatch.setattr("distillbench.profiling.measure.block_times_ms", timed)
    found = measured(small, {"model": "gcn", "hidden": 4}, backend)
    assert found.facts["inference_status"] == "out of memory" and found.facts["dense_flops"] > 0
    assert set(found.samples) == {"peak_memory_mb"}


def test_an_error_of_the_program_is_no_limit():
    with pytest.raises(RuntimeError, match="shapes"), limited({}, "inference"):
        raise RuntimeError("shapes")


@pytest.mark.parametrize("rate, says", [(1e30, "DivergedError: epoch "), (1e38, "RuntimeError: value cannot be")])
def test_a_training_that_diverges_has_no_figure_and_a_reason(small, backend, rate, says):
    inputs, split = small.inputs_of(small.ring(), backend)
    facts = {}
    with limited(facts, "training"):
        epoch_seconds(
            small.model_of({"model": "gcn", "hidden": 4}, backend), inputs, split, Training(learning_rate=rate)
        )
    assert facts["training_status"].startswith(says)


def test_memory_is_of_the_second_forward_pass(small, backend, monkeypatch):
    """The first converts the graph, which the latency does not count either."""
    calls, at_start = [], []
    forward = GNN.forward
    monkeypatch.setattr(GNN, "forward", lambda *a: (calls.append(1), forward(*a))[1])
    monkeypatch.setattr("distillbench.profiling.measure.peak_memory_mb", lambda *_: at_start.append(len(calls)) or 1.0)
    assert measured(small, {"model": "gcn", "hidden": 4}, backend).samples["peak_memory_mb"] == [1.0]
    assert at_start == [1]


def test_one_graph_of_as_many_nodes_as_the_batch_is_not_taken_for_it(small, backend):
    """A batch of one cloud, and another of the same size that is measured by itself."""
    inputs, split = small.inputs_of(small.clouds(), backend, batch_size=1)
    found = measure(small.model_of(DGCNN, backend), inputs, split)
    assert found.facts["batch_nodes"] == found.facts["graph_nodes"]
    assert found.facts["one_graph"] is False and "graph_latency_ms" in found.samples


def test_a_teacher_is_trained_as_its_runs_are():
    pair = {"teacher": {"model": "gcn", "hidden": 8}, "student": {"model": "gcn", "hidden": 4}}
    config = {"seeds": 1, "backends": ["pyg"], "methods": {"supervised": None}}
    for own, rate in (({}, 0.003), ({"teacher_training": {"learning_rate": 0.5, "batch_size": 7}}, 0.5)):
        pairs = {"gcn": pair | {"training": {"learning_rate": 0.003}} | own}
        plan = make_plan(config | {"datasets": {"digits": {"pairs": pairs}}}, [], ROOT)
        cell = plan.cells[0]
        training = plan.profile_params(cell)["training"]
        assert training["teacher"] == plan.teacher_params(cell, 0)["training"]
        assert training["teacher"]["learning_rate"] == rate and training["student"]["learning_rate"] == 0.003
        assert any(file.endswith("profiling/trust.py") for file in plan.profile_sources(cell))


def test_a_function_is_warmed_up_before_it_is_timed(monkeypatch):
    calls = []

    class Timer:
        def __init__(self, *_, num_threads, **__):
            calls.append(("timed", num_threads))

        def adaptive_autorange(self, threshold, min_run_time, max_run_time):
            assert 0 < threshold < 1 and min_run_time <= max_run_time
            return type("Measurement", (), {"times": [0.002, 0.003]})

    monkeypatch.setattr("distillbench.profiling.measure.Timer", Timer)
    assert block_times_ms(lambda: calls.append("call"), 2) == [2.0, 3.0]
    assert calls.index(("timed", 2)) >= 3


def test_epochs_are_timed_but_for_the_first(small, backend, monkeypatch):
    """Which warms up: of the four trained there are three times, between the ends of one and the next."""
    asked = []

    def timed(*arguments, **options):
        asked.append(arguments[4])
        found = fit(*arguments, **options)
        ends = zip(found.history, (9.0, 9.5, 10.25, 12.25), strict=True)
        return replace(found, history=[row | {"seconds": end} for row, end in ends])

    monkeypatch.setattr("distillbench.profiling.measure.fit", timed)
    inputs, split = small.inputs_of(small.ring(), backend)
    model = small.model_of({"model": "gcn", "hidden": 4}, backend)
    assert epoch_seconds(model, inputs, split, Training(epochs=200, patience=1)) == [0.5, 0.75, 2.0]
    assert (asked[0].epochs, asked[0].patience) == (4, None)


# two passes


def passes(first, second, **facts):
    facts = {"throughput_units": 100, "one_graph": True} | facts
    return [Pass(facts, samples) for samples in (first, second)]


def test_figures_are_medians_and_quartiles_over_both_passes():
    figures = combined(passes({"latency_ms": [1.0, 2.0, 9.0]}, {"latency_ms": [3.0, 4.0]}))
    assert [figures[f"latency{q}_ms"] for q in ("", "_q25", "_q75")] == [3.0, 2.0, 4.0]
    assert figures["throughput_per_second"] == pytest.approx(100 / 0.003)
    assert figures["repeats"] == {"latency_ms": [2.0, 3.5]}


def test_a_figure_whose_passes_differ_by_more_than_a_tenth_is_named():
    """Differences over means: 10 and 11: 9.5%; 10 and 11.1: 10.4%."""
    figures = combined(
        passes({"latency_ms": [10.0], "peak_memory_mb": [10.0]}, {"latency_ms": [11.0], "peak_memory_mb": [11.1]})
    )
    assert figures["mistrusted"] == ["peak_memory_mb"]
    assert figures["repeat_difference"] == pytest.approx(1.1 / 10.55)
    agreeing = combined(passes({"latency_ms": [10.0]}, {"latency_ms": [11.0]}))
    assert agreeing["mistrusted"] == [] and agreeing["repeat_difference"] == pytest.approx(1 / 10.5)


def test_memory_below_the_resolution_of_the_counter_is_no_disagreement():
    def figures_of(first, second):
        samples = [{"latency_ms": [1.0], "peak_memory_mb": [value]} for value in (first, second)]
        return combined(passes(*samples))

    assert figures_of(0.0, 0.0)["repeat_difference"] == figures_of(0.0, 0.2)["repeat_difference"] == 0.0
    assert figures_of(1.0, 1.25)["mistrusted"] == []
    assert figures_of(1.0, 1.35)["mistrusted"] == ["peak_memory_mb"]
    assert figures_of(0.0, 0.4)["repeat_difference"] == pytest.approx(2.0)
    assert figures_of(0.0, 0.4)["peak_memory_mb"] == pytest.approx(0.2)


def test_memory_that_cannot_be_measured_is_not_known_and_no_disagreement():
    nan = float("nan")
    figures = combined(
        passes({"latency_ms": [1.0], "peak_memory_mb": [nan]}, {"latency_ms": [1.0], "peak_memory_mb": [nan]})
    )
    assert figures["peak_memory_mb"] is None and figures["repeat_difference"] == 0.0 and figures["mistrusted"] == []


def test_a_figure_that_one_pass_lacks_is_not_to_be_trusted():
    nan = float("nan")
    figures = combined(
        passes({"latency_ms": [1.0], "peak_memory_mb": [nan]}, {"latency_ms": [1.0], "peak_memory_mb": [2.0]})
    )
    assert figures["peak_memory_mb"] == 2.0 and figures["mistrusted"] == ["peak_memory_mb"]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_status_is_the_worse_of_both_and_no_figure_stands_beside_an_error(order):
    def figures_of(bad, difference):
        facts = {"throughput_units": 100, "one_graph": True}
        good = {"exported_status": "ok", "exported_difference": 0.0}
        both = [
            Pass(facts | good, {"latency_ms": [1.0], "exported_latency_ms": [1.0]}),
            Pass(facts | {"exported_status": bad, "exported_difference": difference}, {"latency_ms": [1.0]}),
        ]
        return combined(both[order])

    figures = figures_of("its outputs differ", 0.5)
    assert (figures["exported_status"], figures["exported_difference"]) == ("its outputs differ", 0.5)
    assert not {"exported_latency_ms", "exported_latency_q25_ms"} & set(figures)
    assert "exported_latency_ms" not in figures["repeats"] and figures["mistrusted"] == []
    figures = figures_of("for 50 nodes only", 1e-7)
    assert figures["exported_status"] == "for 50 nodes only" and figures["exported_latency_ms"] == 1.0
    assert figures["mistrusted"] == ["exported_latency_ms"]


def test_without_a_latency_there_is_no_throughput_and_what_was_found_stays():
    failed = {"inference_status": "out of memory"}
    figures = combined(passes({"peak_memory_mb": [3.0]}, {"peak_memory_mb": [3.0]}, **failed))
    assert figures["peak_memory_mb"] == 3.0 and figures["inference_status"] == "out of memory"
    assert not {"latency_ms", "throughput_per_second", "graph_latency_ms"} & set(figures)
    assert combined(passes({}, {}, **failed))["repeat_difference"] == 0.0


def test_the_second_pass_comes_after_the_first_over_both_models_each_in_a_fresh_process(tmp_path, monkeypatch):
    order = []

    def fresh(work, results, params, threads, role):
        order.append((work.__name__, role, threads))
        environment = {"device": "cpu", "threads": threads, "machine": "x86_64"}
        return Pass({"throughput_units": 1, "one_graph": True, "environment": environment}, {"latency_ms": [1.0]})

    monkeypatch.setattr(profiling, "in_fresh_process", fresh)
    monkeypatch.setattr(profiling.psutil, "cpu_percent", lambda interval: 3.0)
    models = {role: {"model": "gcn", "hidden": 4} for role in ("teacher", "student")}
    params = {"dataset": "toy", "backend": "pyg", "pair": "gat", "models": models}
    outputs = {role: str(tmp_path / f"{role}.json") for role in models}
    assert profile_pair("results", params, 2, outputs) == "toy/pyg/gat: teacher 1.00 ms, student 1.00 ms a batch"
    assert order == [("_pass", role, 2) for _ in range(2) for role in ("teacher", "student")]
    profile = json.loads(Path(outputs["student"]).read_text())
    assert profile["role"] == "student" and profile["busy_before_percent"] == 3.0 and profile["mistrusted"] == []


@pytest.fixture
def profiled(tmp_path, backend):
    """The profiles of a pair on a small data set with several graphs, and their table."""
    plugin = load("dataset", ROOT / "datasets/synthetic.py")
    dataset = plugin(plugin.Params(nodes=20))
    write_data(tmp_path / "data/synthetic", "synthetic", dataset, dataset.load())
    outputs = {role: str(tmp_path / f"{role}.json") for role in ("teacher", "student")}
    params = {
        "dataset": "synthetic", "backend": backend.name, "pair": "gat",
        "training": {"teacher": {"batch_size": 3}, "student": {"batch_size": 2}},
        "dataset_file": str(ROOT / "datasets/synthetic.py"), "dataset_params": {"nodes": 20}, "energy": None,
        "models": {"teacher": {"model": "gat", "hidden": 256, "heads": 4}, "student": {"model": "mlp", "hidden": 2}},
    }  # fmt: skip
    profile_pair(str(tmp_path), params, 1, outputs)
    collect_profiles(list(outputs.values()), str(tmp_path / "profiles.csv"))
    profiles = {role: json.loads(Path(path).read_text()) for role, path in outputs.items()}
    return profiles, pd.read_csv(tmp_path / "profiles.csv")


def test_a_pairs_profile_from_disk_to_the_table(profiled, backend):
    profiles, table = profiled
    assert list(table["threads"]) == [1, 1]
    assert set(table["device"]) == {str(backend.device())}
    teacher, student = table.to_dict("records")
    assert (teacher["role"], student["role"]) == ("teacher", "student")
    assert teacher["parameters"] > 100 * student["parameters"]
    assert teacher["file_bytes"] > 4 * teacher["parameters"]
    assert teacher["peak_memory_mb"] > 0  # 40 nodes × 1024 features and more
    for row in (teacher, student):
        for latency in ("latency", "graph_latency"):
            assert 0 < row[f"{latency}_q25_ms"] <= row[f"{latency}_ms"] <= row[f"{latency}_q75_ms"]
        assert row["throughput_per_second"] == pytest.approx(row["batch_nodes"] / row["latency_ms"] * 1000)
        assert row["train_seconds_per_epoch"] > 0 and 0 <= row["repeat_difference"] <= 2
    assert teacher["batch_graphs"] == 2 and teacher["graph_nodes"] < teacher["batch_nodes"]
    assert student["exported_status"] == student["onnx_status"] == "ok"
    assert student["exported_latency_ms"] > 0 and student["onnx_latency_ms"] > 0
    assert set(profiles["student"]["repeats"]) == {
        "latency_ms", "graph_latency_ms", "exported_latency_ms", "onnx_latency_ms", "peak_memory_mb",
        "train_seconds_per_epoch",
    }  # fmt: skip
    assert all(len(medians) == 2 for medians in profiles["student"]["repeats"].values())
    # nothing is measured that the table does not explain; what is in the file alone is not a figure
    assert set(profiles["student"]) - set(COLUMNS) == {"repeats", "environment", "checksum"}
    assert list(table.columns) == [name for name in COLUMNS if name in table.columns]


def test_a_corrupt_profile_is_named(tmp_path):
    path = tmp_path / "teacher.json"
    path.write_text(json.dumps({"dataset": "digits"})[:-3])
    with pytest.raises(RecordError, match=r"teacher\.json: corrupt profile"):
        collect_profiles([str(path)], str(tmp_path / "profiles.csv"))
