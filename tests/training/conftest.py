"""Students of a method, ready to be trained on data small enough to read; for every library and for none."""

from pathlib import Path

import pytest
import torch

from distillbench.config.config import Training
from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec
from distillbench.distillation.method import Dims, Method
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.gnn import GNN, initialise
from distillbench.params import ALL_TASKS
from distillbench.plugins import load
from distillbench.training.fit import fit, without_test
from distillbench.training.inputs import Inputs, teacher_outputs
from distillbench.training.steps import Teaching

METHODS = Path(__file__).parents[2] / "methods"
CPU = torch.device("cpu")
BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(missing_reason(name) is not None, reason=f"{name} is not installed"))
    for name in ("pyg", "dgl", "csr")
]
SETTINGS = [
    pytest.param("multiclass", False, id="transductive"),
    pytest.param("multilabel", False, id="inductive"),
    pytest.param("graph-multiclass", True, id="clouds"),
]
# dropout and batch norm, so that nothing random or stateful is left out
STUDENTS = {
    "multiclass": GATSpec(model="gat", hidden=4, layers=2, heads=2, dropout=0.3),
    "multilabel": LayeredSpec(model="gin", hidden=6, layers=2, dropout=0.3),
    "graph-multiclass": DGCNNSpec(model="dgcnn", widths=(4, 6), embedding=8, head=(6,), k=3, dropout=0.3),
}


class Run:
    """A student of a method, ready to be trained on data whose test labels are removed."""

    def __init__(self, data, backend, method="supervised", *, seed=0, spec=None, batch_size=2, **params):
        self.data = data
        hidden, self.split = without_test(data, data.split)
        self.inputs = Inputs(hidden, backend, CPU, batch_size)
        spec = spec or STUDENTS[data.task_name]
        d_in, d_out = data.x.shape[1], data.num_classes
        self.model, teacher = GNN(spec, backend, d_in, d_out), GNN(spec, backend, d_in, d_out)
        initialise(self.model, seed, "student")
        initialise(teacher, seed, "teacher")
        plugin = load("method", METHODS / f"{method}.py") if isinstance(method, str) else method
        dims = Dims(spec.hidden_dims, d_out)
        self.method = plugin(plugin.Params(**params), dims, dims)
        initialise(self.method, seed, "projector")
        self.teacher = teacher_outputs(teacher, self.inputs, self.split.train) if method != "supervised" else None
        self.seed = seed

    def fit(self, epochs=4, *, patience=None, learning_rate=0.01, **options):
        training = Training(epochs=epochs, patience=patience, learning_rate=learning_rate)
        options = {"seed": self.seed, "teaching": Teaching(self.teacher)} | options
        return fit(self.model, self.method, self.inputs, self.split, training, **options)


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request, one_thread):
    """Each library in turn, then none: one loop trains them all."""
    return get_backend(request.param)


@pytest.fixture
def run_of(data_of, backend):
    def make(task, clouds=False, method="supervised", *, data=None, **options):
        return Run(data or data_of(task, clouds=clouds), backend, method, **options)

    return make


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same(run, other, fit_of_run, fit_of_other):
    assert without_seconds(fit_of_run.history) == without_seconds(fit_of_other.history)
    assert (fit_of_run.best_epoch, fit_of_run.val) == (fit_of_other.best_epoch, fit_of_other.val)
    of_run, of_other = run.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(value, of_other[name]) for name, value in of_run.items())
    assert all(torch.equal(a, b) for a, b in zip(run.method.parameters(), other.method.parameters(), strict=True))


class Spy(Method):
    """Keeps what it was given."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset({"logits", "hidden", "edges", "labels"})

    def terms(self, student, teacher, ctx):
        self.seen = getattr(self, "seen", [])
        self.seen.append((student, teacher, ctx))
        return {"task": ctx.task_loss(student.logits)}
