"""Exported forms: what works today, equal outputs, and a reason where there is no figure."""

import sys
from dataclasses import replace

import pytest
import torch

from distillbench.profiling import exported as forms
from distillbench.profiling.exported import Deployed, exported, onnx_runtime

MLP = {"model": "mlp", "hidden": 4}


def prepared(small, spec, backend, data=None):
    model = small.model_of(spec, backend)
    inputs, split = small.inputs_of(data or small.ring(), backend)
    batch = inputs.ordered(split.train)[0]
    graph = None if spec["model"] == "mlp" else batch.graph
    with torch.inference_mode():
        return model, batch, model(graph, batch.x).logits


def export(small, spec, backend, data=None):
    model, batch, reference = prepared(small, spec, backend, data)
    return exported(model, backend, batch, reads_graph=spec["model"] != "mlp", reference=reference), reference


@pytest.mark.parametrize("kind", ["gat", "gcn", "sage", "gin", "mlp"])
def test_models_of_pyg_are_exported_and_agree(small, backends, kind):
    form, reference = export(small, {"model": kind, "hidden": 4}, backends[0])
    assert form.status == "ok"  # on another size, too
    torch.testing.assert_close(form.run(), reference, rtol=1e-5, atol=1e-6)
    assert form.difference <= 1e-5


@pytest.mark.parametrize("kind", ["gat", "gcn", "sage", "gin"])
def test_an_exported_layer_takes_a_graph_of_another_size(small, backends, kind):
    spec, pyg = {"model": kind, "hidden": 4}, backends[0]
    model, batch, _ = prepared(small, spec, pyg)
    free = ({0: torch.export.Dim.AUTO}, {1: torch.export.Dim.AUTO})
    traced = (batch.x, batch.graph.edge_index)
    with torch.no_grad():
        program = torch.export.export(Deployed(model, pyg, batch.graph), traced, dynamic_shapes=free).module()
        other = small.ring(77)
        expected = model(pyg.graph(other, torch.device("cpu")), other.x).logits
        torch.testing.assert_close(program(other.x, other.edge_index), expected)


def test_a_model_of_whole_graphs_has_no_program_for_others(small, backends):
    data = replace(small.clouds(), edge_index=torch.arange(48).repeat(2, 1))
    form, _ = export(small, {"model": "gcn", "hidden": 4, "readout": "mean"}, backends[0], data)
    assert form.run is None and "data-dependent" in form.status  # the sum over each graph's nodes


def test_an_mlp_is_exported_whatever_the_library_and_takes_any_number_of_nodes(small, backend):
    model, batch, _ = prepared(small, MLP, backend)
    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(Deployed(model, backend, None), (batch.x,), dynamic_shapes=free).module()
    x = small.ring(77).x
    torch.testing.assert_close(program(x), model(None, x).logits)


def test_what_cannot_be_traced_gives_a_short_reason_and_nothing_is_printed(small, backends, capfd):
    form, _ = export(small, {"model": "gcn", "hidden": 4}, backends[1])  # DGL's kernels are no operators of PyTorch
    assert form.run is None and form.difference is None
    assert form.status != "ok" and 10 < len(form.status) <= 110 and "\n" not in form.status
    assert capfd.readouterr() == ("", "")


def test_an_mlp_runs_in_onnx_runtime_and_agrees(small, backend):
    model, batch, reference = prepared(small, MLP, backend)
    form = onnx_runtime(model, backend, batch, threads=1, reference=reference)
    assert form.status == "ok" and form.difference <= 1e-5
    torch.testing.assert_close(form.run(), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("off, says", [(1e-3, "differ from the model's by 1.0e-03"), (float("nan"), "by nan")])
def test_outputs_that_differ_are_an_error_and_no_figure(off, says):
    reference = torch.tensor([[2.0, -10.0]])
    form = forms._checked(lambda x: reference + 10 * off, (torch.ones(1, 2),), reference)
    assert form.run is None and says in form.status
    assert form.difference == (pytest.approx(1e-3, rel=1e-3) if off == 1e-3 else None)  # a file has no NaN


def test_the_difference_is_relative_to_the_largest_output():
    reference = torch.tensor([[0.001, -10.0]], dtype=torch.float64)
    form = forms._checked(lambda x: reference.repeat(len(x), 1) + 5e-5, (torch.ones(1, 2),), reference)
    assert form.status == "ok" and form.difference == pytest.approx(5e-6)


def only_one(x):
    if len(x) > 1:
        raise RuntimeError("a constant size")
    return 2 * x


@pytest.mark.parametrize("program", [only_one, lambda x: 2 * x[:1], lambda x: 2 * x.flip(0) * (len(x) < 2)])
def test_a_program_that_takes_no_other_size_says_so_and_is_timed_all_the_same(program):
    x = torch.tensor([[1.0, -3.0]])
    form = forms._checked(program, (x,), 2 * x)
    assert form.status == "for 1 nodes only" and torch.equal(form.run(), 2 * x)


def test_a_second_copy_of_the_graph_has_edges_of_its_own():
    seen = []

    def program(x, edge_index):
        seen.append(edge_index.tolist())
        return x

    x = torch.ones(3, 1)
    assert forms._checked(program, (x, torch.tensor([[0, 1], [2, 2]])), x).status == "ok"
    assert seen == [[[0, 1], [2, 2]], [[0, 1, 3, 4], [2, 2, 5, 5]]]


def test_without_onnx_runtime_it_says_what_to_install(small, backend, monkeypatch):
    model, batch, reference = prepared(small, MLP, backend)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    form = onnx_runtime(model, backend, batch, threads=1, reference=reference)
    assert form.run is None and "pip install 'distillbench[onnx]'" in form.status


def test_an_onnx_runtime_that_does_not_load_gives_the_reason(small, backend, monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "onnxruntime":
                raise ImportError("DLL load failed")

    model, batch, reference = prepared(small, MLP, backend)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    form = onnx_runtime(model, backend, batch, threads=1, reference=reference)
    assert form.run is None and form.status == "ImportError: DLL load failed"
