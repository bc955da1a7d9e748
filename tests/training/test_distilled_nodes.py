"""Which nodes the distillation sees: with ``distill_nodes: train``, the subgraph of the training nodes alone."""

import pytest
import torch
from torch import nn

from distillbench.models.gnn import Output
from distillbench.training.inputs import teacher_outputs

from .conftest import Spy, without_seconds


def test_terms_for_train_nodes_see_exactly_the_induced_subgraph(run_of):
    run = run_of("multiclass", method=Spy)
    run.fit(1, distill_nodes="train")
    ((student, teacher, ctx),) = run.method.seen
    data, train = run.data, run.split.train.sort().values
    induced = {(a, b) for a, b in data.edge_index.T.tolist() if {a, b} <= set(train.tolist())}
    seen = {(train[a].item(), train[b].item()) for a, b in ctx.edge_index.T.tolist()}
    assert seen == induced
    assert ctx.edge_index.shape[1] == len(induced) < data.edge_index.shape[1]
    assert (ctx.edge_index[1].diff() >= 0).all()
    assert all(edges is ctx.edge_index for edges in (*student.edge_index, *teacher.edge_index))
    assert torch.equal(ctx.labels, data.y[train])
    assert ctx.labelled.all()
    assert ctx.num_nodes == len(student.logits) == len(teacher.hidden[0]) == len(train)
    assert torch.equal(teacher.logits, run.teacher.logits[train])
    for found, stored in zip(teacher.hidden, run.teacher.hidden, strict=True):
        assert torch.equal(found, stored[train])


def test_terms_for_all_nodes_see_the_whole_graph(run_of):
    run = run_of("multiclass", method=Spy)
    run.fit(1)
    ((student, teacher, ctx),) = run.method.seen
    assert torch.equal(ctx.edge_index, run.data.edge_index)
    assert ctx.num_nodes == len(student.logits) == len(teacher.logits) == run.data.num_nodes
    assert torch.equal(teacher.logits, run.teacher.logits)


@pytest.mark.parametrize("method", ["kd", "fitnet", "at", "lsp"])
def test_the_nodes_that_are_distilled_change_the_run_but_not_the_supervised_one(run_of, method):
    def losses(name, nodes):
        return [row["loss"] for row in run_of("multiclass", method=name).fit(2, distill_nodes=nodes).history]

    assert losses(method, "all") != losses(method, "train")
    assert losses("supervised", "all") == losses("supervised", "train")


def test_lsp_with_train_nodes_uses_the_precomputed_structure_of_the_same_subgraph(run_of, monkeypatch):
    run, plain = run_of("multiclass", method="lsp"), run_of("multiclass", method="lsp")
    monkeypatch.setattr(type(plain.method), "precompute", lambda self, teacher, edge_index: {})
    without = plain.fit(2, distill_nodes="train").history
    monkeypatch.undo()
    assert without_seconds(run.fit(2, distill_nodes="train").history) == without_seconds(without)


class Drawing(nn.Module):
    """Its one hidden layer uses edges of its own: from every node to the first two."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, graph, x):
        out = self.model(graph, x)
        return Output(out.logits, out.hidden[:1], (drawn(len(x)),), dynamic=True)


def drawn(nodes):
    source = torch.arange(nodes).repeat(2)
    return torch.stack([source, torch.arange(2).repeat_interleave(nodes)])


@pytest.mark.parametrize("nodes", ["all", "train"])
def test_edges_that_a_model_drew_are_those_among_the_nodes(run_of, nodes):
    run = run_of("multiclass", method=Spy)
    run.model = Drawing(run.model)
    run.teacher = teacher_outputs(run.model, run.inputs, run.split.train)
    run.fit(1, distill_nodes=nodes)
    ((student, teacher, ctx),) = run.method.seen
    seen = range(run.data.num_nodes) if nodes == "all" else run.split.train.tolist()
    expected = {(a, b) for a, b in drawn(run.data.num_nodes).T.tolist() if {a, b} <= {*seen}}
    names = sorted(seen)
    for out in (student, teacher):
        assert out.dynamic
        found = [(names[a], names[b]) for a, b in out.edge_index[0].T.tolist()]
        assert sorted(found) == sorted(expected) and len(found) != ctx.edge_index.shape[1]
