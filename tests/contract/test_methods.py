"""What holds for every method in ``methods/``, on both libraries, for every task it says it applies to.

A new file in the folder is tested without anything being added here.
"""

from pathlib import Path

import pytest
import torch

from distillbench.inputs import Inputs, TeacherOutputs, teacher_outputs
from distillbench.method import Context, Dims
from distillbench.models import GNN, Output, initialise
from distillbench.params import ALL_TASKS
from distillbench.plugins import available, declaration, load
from distillbench.specs import DGCNNSpec, GATSpec, LayeredSpec

METHODS = Path(__file__).parents[2] / "methods"
DECLARED = {name: declaration("method", METHODS / f"{name}.py") for name in available([METHODS])}
CASES = [
    pytest.param(name, task, clouds, id=f"{name}-{'clouds' if clouds else task}")
    for name, declared in DECLARED.items()
    for task in sorted(declared.tasks)
    for clouds in ((False, True) if task == "graph-multiclass" else (False,))
]
DISTILLING = [case for case in CASES if case.values[0] != "supervised"]

# terms that compare the two models directly, so that they are zero for a student equal to its teacher
ZERO_WHEN_EQUAL = {"attention", "structure"}


def specs(task, clouds):
    """A student and a teacher that differ in width."""
    if clouds:
        return tuple(DGCNNSpec(model="dgcnn", widths=(w, 2 * w), embedding=8, head=(6,), k=3) for w in (4, 6))
    if task == "graph-multiclass":
        return tuple(LayeredSpec(model="gin", hidden=w, layers=2, readout="mean") for w in (4, 6))
    return (
        GATSpec(model="gat", hidden=3, layers=3, heads=2),
        GATSpec(model="gat", hidden=4, layers=3, heads=(2, 2, 3)),
    )


class Cell:
    """A student, its teacher and a method on one data set and library, as in a training step; in float64."""

    def __init__(self, name, data, backend, clouds, *, equal=False, seed=0):
        self.data, self.backend = data, backend
        student, teacher = specs(data.task_name, clouds)
        if equal:
            teacher = student
        self.student, self.teacher = (
            GNN(spec, backend, data.x.shape[1], data.num_classes).double() for spec in (student, teacher)
        )
        initialise(self.student, seed, "student")
        initialise(self.teacher, seed, "student" if equal else "teacher")
        self.student.eval()  # the equal teacher is in evaluation mode too: batch norms are then the same function
        plugin = load("method", METHODS / f"{name}.py")
        dims = (Dims(spec.hidden_dims, data.num_classes) for spec in (student, teacher))
        self.method = plugin(plugin.Params(), *dims).double()
        initialise(self.method, seed, "projector")
        self.inputs = Inputs(data, backend, torch.device("cpu"), batch_size=data.num_graphs)
        object.__setattr__(data, "x", data.x.double())
        object.__setattr__(data, "y", data.y.double() if data.task.multilabel else data.y)

    def step(self, *, precomputed=True, student=None, random=5):
        """Student's and teacher's output and the terms, for all graphs (all nodes) at once."""
        everything = torch.arange(self.data.num_graphs)
        stored = teacher_outputs(self.teacher, self.inputs, everything)
        if precomputed:
            parts = {f: getattr(stored, f) for f in ("ids", "ptr", "logits", "hidden", "edge_index", "edges")}
            stored = TeacherOutputs(**parts, precomputed=self.method.precompute(stored.output, stored.edge_index))
        (batch,) = self.inputs.ordered(everything if not self.inputs.transductive else self.data.split.train)
        of_teacher, precomputed = stored.of(batch)
        of_student = student or self.student(batch.graph, batch.x)
        labelled = torch.ones(len(batch.y), dtype=torch.bool)
        if self.inputs.transductive:
            labelled = torch.zeros(len(batch.y), dtype=torch.bool).index_fill(0, batch.rows, True)
        ctx = Context(
            self.data.task,
            self.data.task.hide(batch.y, ~labelled),
            labelled,
            batch.graph.edge_index,
            len(batch.x),
            1,
            torch.Generator().manual_seed(random),
            precomputed,
        )
        return of_student, of_teacher, self.method.terms(of_student, of_teacher, ctx)


@pytest.fixture
def cell_of(data_of, backend):
    def make(name, task, clouds, **options):
        return Cell(name, data_of(task, clouds=clouds), backend, clouds, **options)

    return make


def distilled(terms):
    return [value for term, value in terms.items() if term != "task"]


@pytest.mark.parametrize("name, task, clouds", CASES)
def test_terms_are_named_finite_scalars_among_them_the_task(cell_of, name, task, clouds):
    _, _, terms = cell_of(name, task, clouds).step()
    assert "task" in terms
    assert (len(terms) > 1) == (name != "supervised")
    for term, value in terms.items():
        assert value.shape == (), term
        assert value.isfinite(), term
        assert value > 0, term  # two different models: nothing here is trivially zero


@pytest.mark.parametrize("name, task, clouds", CASES)
def test_gradient_reaches_every_parameter_of_the_student_and_no_teacher(cell_of, name, task, clouds):
    cell = cell_of(name, task, clouds)
    _, of_teacher, terms = cell.step()
    sum(terms.values()).backward()
    for parameter, value in cell.student.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        assert value.grad.abs().sum() > 0, parameter
    assert not of_teacher.logits.requires_grad
    assert not any(h.requires_grad for h in of_teacher.hidden)
    assert all(value.grad is None for value in cell.teacher.parameters())


@pytest.mark.parametrize("name, task, clouds", DISTILLING)
def test_gradient_of_the_distillation_alone_reaches_student_and_projectors(cell_of, name, task, clouds):
    cell = cell_of(name, task, clouds)
    _, _, terms = cell.step()
    for value in distilled(terms):
        first = next(cell.student.parameters())
        (grad,) = torch.autograd.grad(value, [first], retain_graph=True)
        assert grad.abs().sum() > 0
    sum(distilled(terms)).backward()
    for parameter, value in cell.method.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        assert value.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("name, task, clouds", DISTILLING)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(cell_of, name, task, clouds):
    cell = cell_of(name, task, clouds, equal=True)
    of_student, of_teacher, terms = cell.step()
    assert torch.equal(of_student.logits, of_teacher.logits)
    for term in ZERO_WHEN_EQUAL & terms.keys():
        assert terms[term].item() == 0.0, term
    if not list(cell.method.parameters()):
        seen = [of_student.logits, *of_student.hidden]
        grads = torch.autograd.grad(sum(distilled(terms)), seen, allow_unused=True)
        assert any(grad is not None for grad in grads)
        for grad in grads:
            assert grad is None or grad.abs().max() < 1e-12


@pytest.mark.parametrize("name, task, clouds", CASES)
def test_terms_do_not_depend_on_the_numbering_of_nodes_and_graphs(data_of, backend, name, task, clouds):
    data = data_of(task, clouds=clouds)
    renumbered = renumber(data, torch.Generator().manual_seed(2))
    assert not torch.equal(data.x, renumbered.x)
    values = [Cell(name, each, backend, clouds).step()[2] for each in (data, renumbered)]
    for term in values[0]:
        assert values[1][term].item() == pytest.approx(values[0][term].item(), rel=1e-10, abs=1e-13), term


def renumber(data, random):
    """The same graphs in another order, their nodes in another order, their edges sorted anew."""
    graphs = torch.randperm(data.num_graphs, generator=random)
    sizes = data.graph_ptr.diff()
    old = torch.cat(
        [data.graph_ptr[g] + torch.randperm(int(sizes[g]), generator=random) for g in graphs]
    )  # of each new node
    new = torch.empty_like(old).index_put((old,), torch.arange(len(old)))
    source, destination = new[data.edge_index]
    order = (destination * len(old) + source).argsort()
    place = torch.empty_like(graphs).index_put((graphs,), torch.arange(len(graphs)))
    rows = graphs if data.task.level == "graph" else old
    of_part = new if data.setting == "transductive" else place
    return type(data)(
        x=data.x[old],
        edge_index=torch.stack([source, destination])[:, order],
        y=data.y[rows],
        graph_ptr=torch.cat([sizes.new_zeros(1), sizes[graphs].cumsum(0)]),
        task_name=data.task_name,
        setting=data.setting,
        num_classes=data.num_classes,
        split=type(data.split)(*(of_part[part] for part in data.split)),
    )


@pytest.mark.parametrize("name, task, clouds", CASES)
def test_the_same_step_twice_is_equal_bit_for_bit(cell_of, name, task, clouds):
    cell = cell_of(name, task, clouds)
    first, second = ({k: v.item() for k, v in cell.step()[2].items()} for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name, task, clouds", DISTILLING)
def test_what_is_precomputed_changes_no_value(cell_of, name, task, clouds):
    cell = cell_of(name, task, clouds)
    with_it, without = (
        {k: v.item() for k, v in cell.step(precomputed=precomputed)[2].items()} for precomputed in (True, False)
    )
    assert with_it == {term: pytest.approx(value, rel=1e-12) for term, value in without.items()}


@pytest.mark.parametrize("name, task, clouds", CASES)
def test_a_method_reads_only_what_it_says_it_requires(cell_of, name, task, clouds):
    """Poisoned in all that it does not name, the teacher gives the same terms."""
    cell = cell_of(name, task, clouds)
    _, _, honest = cell.step(precomputed=False)
    requires = DECLARED[name].requires
    true = teacher_outputs(cell.teacher, cell.inputs, torch.arange(cell.data.num_graphs))
    nan = float("nan")
    poisoned = Output(
        true.logits if "logits" in requires else true.logits * nan,
        true.hidden if "hidden" in requires else tuple(h * nan for h in true.hidden),
        true.output.edge_index if "edges" in requires else (None,) * len(true.hidden),
    )
    terms = cell.method.terms
    cell.method.terms = lambda student, teacher, ctx: terms(student, poisoned, ctx)
    _, _, found = cell.step(precomputed=False)
    assert {k: v.item() for k, v in found.items()} == {k: v.item() for k, v in honest.items()}


def test_the_shipped_methods_apply_to_every_task():
    shipped = {"supervised", "kd", "fitnet", "at", "lsp"}
    assert shipped <= DECLARED.keys()
    assert all(DECLARED[name].tasks == ALL_TASKS for name in shipped)
