"""Exported forms: what works today, equal outputs, and a reason where there is no figure."""

import sys

import pytest
import torch

from distillbench import exported as forms
from distillbench.exported import Deployed, exported, onnx_runtime

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
    assert form.status == "ok"
    torch.testing.assert_close(form.run(), reference, rtol=1e-5, atol=1e-6)
    assert form.difference <= 1e-5


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
    form = forms._checked(lambda: reference + 10 * off, reference)
    assert form.run is None and says in form.status


def test_the_difference_is_relative_to_the_largest_output():
    reference = torch.tensor([[0.001, -10.0]], dtype=torch.float64)
    form = forms._checked(lambda: reference + 5e-5, reference)
    assert form.status == "ok" and form.difference == pytest.approx(5e-6)


def test_without_onnx_runtime_it_says_what_to_install(small, backend, monkeypatch):
    model, batch, reference = prepared(small, MLP, backend)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    form = onnx_runtime(model, backend, batch, threads=1, reference=reference)
    assert form.run is None and "pip install 'distillbench[onnx]'" in form.status
