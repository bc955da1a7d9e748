"""The frozen teacher is run before training, never in a step, and what depends on it alone is computed once."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillbench.config.config import Training
from distillbench.contract.cases import Case, cases_of
from distillbench.contract.toys import data_for, models_of
from distillbench.distillation.method import Dims, Method
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.gnn import GNN, initialise, initialise_around
from distillbench.params import ALL_TASKS
from distillbench.plugins import available, declaration, load
from distillbench.seeds import generator
from distillbench.training.fit import fit, without_test
from distillbench.training.inputs import Inputs, teacher_outputs
from distillbench.training.steps import Guidance, Teaching, setup_of

METHODS = Path(__file__).parents[2] / "methods"
CPU = torch.device("cpu")
ONE_GRAPH, SEVERAL = Case("multiclass", "gat", transductive=True), Case("multilabel", "gat")


def settings():
    """Every shipped method on its cases; on one graph, distilling on all nodes and, where it can, on some."""
    for name in available([METHODS]):
        declared = declaration("method", METHODS / f"{name}.py")
        for case in cases_of(declared):
            some = case.transductive and not declared.attributes.get("needs_unlabelled", False)
            for nodes in ("all", "train") if some else ("all",):
                yield pytest.param(name, case, nodes, id=f"{name}-{case}-{nodes}")


class Run:
    """A student of a method with teachers of other width: their outputs, and the first itself for those who ask."""

    def __init__(self, plugin, case, backend, **params):
        data = data_for(case)
        visible, self.split = without_test(data, data.split)
        student, teacher, further = models_of(case)
        sizes = backend, data.x.shape[1], data.num_classes
        self.inputs = Inputs(visible, backend, CPU, 2)
        models = [GNN(spec, *sizes) for spec in (teacher, *further)]
        for number, model in enumerate(models):
            initialise(model, 0, f"teacher{number}")
        outputs = [teacher_outputs(model, self.inputs, self.split.train) for model in models]
        self.teaching = Teaching(outputs[0], tuple(outputs[1:]), models[0], lambda: GNN(teacher, *sizes))
        self.method = plugin(
            plugin.Params(**plugin.tried_with | params),
            *(Dims(spec.hidden_dims, data.num_classes) for spec in (student, teacher)),
        )
        initialise(self.method, 0, "projector")
        self.student = GNN(student, backend, self._widened(backend), data.num_classes)
        initialise(self.student, 0, "student")
        self.trained = self.method.wrap_student(self.student, self._setup())
        initialise_around(self.student, self.trained, 0, "student")

    def _setup(self):
        return setup_of(self.inputs, self.split, self.teaching, generator(0, "student"))

    def _widened(self, backend):
        """Give the student the features that the method adds; how many there are then."""
        data, extra = self.inputs.data, self.method.student_inputs(self._setup())
        if extra is not None:
            data = replace(data, x=torch.cat([data.x, extra], dim=1))
            self.inputs = Inputs(data, backend, CPU, 2)
        return data.x.shape[1]

    def fit(self, epochs, nodes):
        return fit(
            self.trained,
            self.method,
            self.inputs,
            self.split,
            Training(epochs=epochs, batch_size=2),
            seed=0,
            teaching=self.teaching,
            distill_nodes=nodes,
        ).history


# No step runs a teacher


class Forwards:
    """Which models ran before the first step and from then on."""

    def __init__(self, monkeypatch):
        self.prepared, self.before, self.since = False, [], []
        forward, prepare = GNN.forward, Guidance.__init__

        def counted(model, graph, x):
            (self.since if self.prepared else self.before).append(model)
            return forward(model, graph, x)

        def preparing(guidance, *arguments):
            prepare(guidance, *arguments)
            self.prepared = True

        monkeypatch.setattr(GNN, "forward", counted)
        monkeypatch.setattr(Guidance, "__init__", preparing)

    def of_others_in_steps(self, run):
        assert sum(model is run.student for model in self.since) >= 4  # two epochs of a step and an evaluation
        return sum(model is not run.student for model in self.since)


@pytest.mark.parametrize("method, case, nodes", list(settings()))
def test_no_step_of_any_method_runs_a_teacher(monkeypatch, one_thread, method, case, nodes):
    run = Run(load("method", METHODS / f"{method}.py"), case, get_backend("csr"))
    forwards = Forwards(monkeypatch)
    run.fit(2, nodes)
    assert forwards.of_others_in_steps(run) == 0
    # those that are given a model do run it, but before
    assert bool(forwards.before) == (method in ("krd", "vqgraph"))


class Wasteful(Method):
    """Runs the teacher in every step."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset({"logits", "model"})
    new = False

    def prepare(self, setup):
        self.run = setup.run_teacher
        if self.new:
            self.run = setup.new_teacher().eval()
            initialise(self.run, 0, "own")
        self.x = setup.x

    def terms(self, student, teacher, ctx):
        return {"task": ctx.task_loss(student.logits), "of": self.run(self.x).logits.mean().detach()}


class WastefulWithItsOwn(Wasteful):
    """Runs another model like the teacher in every step."""

    new = True


@pytest.mark.parametrize("method", [Wasteful, WastefulWithItsOwn])
@pytest.mark.parametrize(
    "case, nodes, steps", [(ONE_GRAPH, "all", 1), (ONE_GRAPH, "train", 1), (SEVERAL, "all", 2)], ids=str
)
def test_a_method_that_runs_a_teacher_in_its_steps_is_found(monkeypatch, one_thread, method, case, nodes, steps):
    run = Run(method, case, get_backend("csr"))
    forwards = Forwards(monkeypatch)
    run.fit(2, nodes)
    assert forwards.before == []
    assert forwards.of_others_in_steps(run) == 2 * steps


# The teacher's structure is computed once

LIBRARIES = [pytest.param(name, marks=pytest.mark.skipif(bool(missing_reason(name)), reason=f"{name}: not installed"))
             for name in ("pyg", "dgl", "csr")]  # fmt: skip
STRUCTURED = [
    pytest.param("lsp", {}, id="lsp"),
    pytest.param("lsp", {"self_loops": False}, id="lsp-without-self-loops"),
    pytest.param("lsp_official", {}, id="lsp_official"),
]
STATIC = [
    pytest.param(ONE_GRAPH, "all", id="one-graph-all"),
    pytest.param(ONE_GRAPH, "train", id="one-graph-train"),
    pytest.param(SEVERAL, "all", id="graphs"),
]


def structured(method, case, library, layers=((-1, -1),), **params):
    """A run of a method whose layers are matched so."""
    plugin = load("method", METHODS / f"{method}.py")
    return Run(plugin, case, get_backend(library), layers=layers, **params)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method, params", STRUCTURED)
@pytest.mark.parametrize("case, nodes", STATIC)
def test_a_static_structure_of_the_teacher_is_computed_once_a_run(
    monkeypatch, one_thread, library, method, params, case, nodes
):
    # of two pairs with one teacher's layer, the structure of that layer serves both
    for layers, of_teacher in (([(-1, -1)], 1), ([(0, 0), (-1, -1)], 2), ([(0, -1), (-1, -1)], 1)):
        run, calls = structured(method, case, library, layers, **params), []
        module = sys.modules[type(run.method).__module__]

        def counted(h, *arguments, compute=module.local_structure, calls=calls, **options):
            calls.append(h.requires_grad)
            return compute(h, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(module, "local_structure", counted)
            run.fit(3, nodes)
        steps = 3 if case.transductive else 6  # four graphs for training, two a batch
        assert calls.count(True) == steps * len(layers)  # the student's changes in every step
        assert calls.count(False) == of_teacher


@pytest.mark.parametrize("method, params", STRUCTURED)
@pytest.mark.parametrize("case, nodes", STATIC)
def test_a_stored_structure_trains_as_one_that_is_computed_in_every_step(
    monkeypatch, one_thread, method, params, case, nodes
):
    stored, plain = (structured(method, case, "csr", [(0, 0), (-1, -1)], **params) for _ in range(2))
    monkeypatch.setattr(plain.method, "precompute", lambda teacher, edge_index: {})
    for found, expected in zip(stored.fit(3, nodes), plain.fit(3, nodes), strict=True):
        assert found | {"seconds": 0} == pytest.approx(expected | {"seconds": 0}, rel=1e-6)


def test_a_structure_over_edges_that_are_drawn_is_not_stored(one_thread):
    run = structured("lsp", Case("graph-multiclass", "dgcnn", clouds=True), "csr", [(0, 0)])
    teacher = run.teaching.outputs.output
    assert run.method.precompute(teacher, run.teaching.outputs.edge_index) == {}
