"""What a method is given besides two outputs: the setup, further teachers, the student itself, an adversary's step."""

from itertools import accumulate

import pytest
import torch
from torch import nn

from distillbench.config.config import Training
from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec
from distillbench.distillation.method import Dims, Method
from distillbench.models.gnn import GNN, initialise
from distillbench.params import ALL_TASKS, Parameters
from distillbench.seeds import generator
from distillbench.training.fit import Checkpointing, fit, without_test
from distillbench.training.inputs import Inputs, teacher_outputs
from distillbench.training.steps import Teaching, setup_of, subgraph

CPU = torch.device("cpu")
SETTINGS = [
    pytest.param("multiclass", False, id="transductive"),
    pytest.param("multilabel", False, id="inductive"),
    pytest.param("graph-multiclass", True, id="clouds"),
]
SPECS = {
    "multiclass": GATSpec(model="gat", hidden=4, layers=3, heads=2),
    "multilabel": LayeredSpec(model="gin", hidden=6, layers=3),
    "graph-multiclass": DGCNNSpec(model="dgcnn", widths=(4, 6), embedding=8, head=(6,), k=3),
}


class Spy(Method):
    """Remembers what it is given."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset({"hidden", "teachers", "model"})

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setup, self.seen, self.on_others = None, [], []

    def prepare(self, setup):
        self.setup = setup

    def terms(self, student, teacher, ctx):
        again = ctx.run_student(ctx.x)
        self.on_others.append(ctx.run_student(ctx.x.square()))
        self.seen.append((student, teacher, ctx, again))
        return {"task": ctx.task_loss(student.logits)}


class Cell:
    """A student, its teacher and a further one, of other width."""

    def __init__(self, data, backend, method=Spy, nodes="all"):
        self.data, self.nodes = data, nodes
        hidden, self.split = without_test(data, data.split)
        self.inputs = Inputs(hidden, backend, CPU, 2)
        spec = SPECS[data.task_name]
        self.wide = spec.model_copy(update={"widths": (5, 7)} if spec.model == "dgcnn" else {"hidden": 9})
        arguments = (backend, data.x.shape[1], data.num_classes)
        self.model, self.teacher, further = (GNN(each, *arguments) for each in (spec, spec, self.wide))
        for model, role in ((self.model, "student"), (self.teacher, "teacher"), (further, "further")):
            initialise(model, 0, role)
        dims = Dims(spec.hidden_dims, data.num_classes)
        self.method = method(Parameters(), dims, dims)
        initialise(self.method, 0, "projector")
        self.outputs, self.further = (
            teacher_outputs(model, self.inputs, self.split.train) for model in (self.teacher, further)
        )
        self.teaching = Teaching(self.outputs, (self.further,), self.teacher, lambda: GNN(spec, *arguments))

    def fit(self, epochs=1, **options):
        training = Training(epochs=epochs, batch_size=2)
        options = {"teaching": self.teaching, "distill_nodes": self.nodes, "seed": 0} | options
        return fit(self.model, self.method, self.inputs, self.split, training, **options)


@pytest.fixture
def cell_of(data_of, backend):
    return lambda task, clouds, *arguments, **options: Cell(
        data_of(task, clouds=clouds), backend, *arguments, **options
    )


# the setup


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_setup_is_all_that_is_seen_in_training_and_no_more(cell_of, task, clouds):
    cell = cell_of(task, clouds)
    cell.fit()
    setup, data, train = cell.method.setup, cell.data, cell.split.train.sort().values
    if data.setting == "transductive":
        assert torch.equal(setup.x, data.x) and torch.equal(setup.edge_index, data.edge_index)
        assert setup.labelled.nonzero().flatten().tolist() == train.tolist()
        assert (setup.labels[~setup.labelled] == -1).all()
        assert torch.equal(setup.labels[train], data.y[train])
    else:
        parts = [data.graph(int(graph)) for graph in train]
        assert torch.equal(setup.x, torch.cat([part.x for part in parts]))
        assert torch.equal(setup.labels, torch.cat([part.y for part in parts]))
        assert setup.labelled.all()
        starts = accumulate([0, *(len(part.x) for part in parts[:-1])])
        edges = [part.edge_index + start for part, start in zip(parts, starts, strict=True)]
        assert torch.equal(setup.edge_index, torch.cat(edges, dim=1))
    assert setup.num_nodes == len(setup.teacher.hidden[0])
    assert torch.equal(setup.teacher.logits, cell.outputs.logits)
    assert [torch.equal(each.logits, cell.further.logits) for each in setup.teachers] == [True]


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_teacher_can_be_run_on_other_features_and_gives_its_outputs_on_its_own(cell_of, task, clouds):
    cell = cell_of(task, clouds)
    cell.fit()
    setup = cell.method.setup
    same = setup.run_teacher(setup.x)
    assert torch.allclose(same.logits, setup.teacher.logits, atol=1e-6)
    assert not same.logits.requires_grad
    assert not torch.allclose(setup.run_teacher(setup.x + 1).logits, setup.teacher.logits)
    wider = torch.cat([setup.x, torch.ones(setup.num_nodes, 2)], dim=1)  # a student may see more
    assert torch.allclose(setup.run_teacher(wider).logits, same.logits, atol=1e-6)


def test_a_new_teacher_is_untrained_and_on_the_graph(cell_of):
    cell = cell_of("multiclass", False)
    cell.fit()
    setup = cell.method.setup
    model = setup.new_teacher()
    assert {tuple(p.shape) for p in model.parameters()} == {tuple(p.shape) for p in cell.teacher.parameters()}
    out = model(setup.x)
    assert out.logits.shape == setup.teacher.logits.shape and out.logits.requires_grad
    assert not torch.allclose(out.logits, setup.teacher.logits)


# the context


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_a_step_says_which_nodes_it_is_about(cell_of, task, clouds):
    cell = cell_of(task, clouds)
    cell.fit()
    setup = cell.method.setup
    for _, teacher, ctx, _ in cell.method.seen:
        assert torch.equal(setup.x[ctx.nodes], ctx.x)
        for stored, found in zip(setup.teacher.hidden, teacher.hidden, strict=True):
            assert torch.equal(stored[ctx.nodes], found)
        (further,) = ctx.teachers
        assert torch.equal(setup.teachers[0].hidden[-1][ctx.nodes], further.hidden[-1])
    nodes = torch.cat([ctx.nodes for _, _, ctx, _ in cell.method.seen])
    assert sorted(nodes.tolist()) == list(range(setup.num_nodes))


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_student_can_be_run_on_other_features(cell_of, task, clouds):
    cell = cell_of(task, clouds)
    cell.fit()
    assert len(cell.method.seen) == (1 if cell.inputs.transductive else 2)  # four graphs, two a batch
    for (student, _, _, again), other in zip(cell.method.seen, cell.method.on_others, strict=True):
        assert torch.allclose(student.logits, again.logits, atol=1e-6)
        assert again.logits.requires_grad
        assert not torch.allclose(student.logits, other.logits, atol=1e-2)


def test_with_train_nodes_all_of_it_is_about_their_subgraph(cell_of):
    cell = cell_of("multiclass", False, nodes="train")
    cell.fit()
    setup, train = cell.method.setup, cell.split.train.sort().values
    ((student, teacher, ctx, again),) = cell.method.seen
    whole = subgraph(cell.data, train)
    assert torch.equal(setup.x, whole.x) and torch.equal(setup.edge_index, whole.edge_index)
    assert torch.equal(ctx.x, whole.x) and torch.equal(ctx.edge_index, whole.edge_index)
    assert ctx.nodes.tolist() == list(range(len(train)))
    assert torch.equal(teacher.logits, cell.outputs.logits[train])
    assert torch.equal(ctx.teachers[0].logits, cell.further.logits[train])
    assert torch.allclose(student.logits, again.logits, atol=1e-6)
    assert not torch.allclose(student.logits, cell.method.on_others[0].logits, atol=1e-2)
    assert torch.allclose(setup.run_teacher(setup.x).logits, setup.teacher.logits, atol=1e-6)


def test_a_sample_is_all_nodes_without_a_draw_where_there_are_no_more(cell_of):
    cell = cell_of("multiclass", False)
    cell.fit()
    ((_, _, ctx, _),) = cell.method.seen
    state = ctx.random.get_state()
    assert ctx.sample(ctx.num_nodes).tolist() == list(range(ctx.num_nodes))
    assert torch.equal(ctx.random.get_state(), state)
    some = ctx.sample(5)
    assert len(set(some.tolist())) == 5
    assert not torch.equal(ctx.random.get_state(), state)


# adversaries


class Game(Method):
    """A discriminator that tells the student's logits from the teacher's; the student moves against it."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset({"logits"})

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.projector = nn.Linear(self.student_dims.logits, 2)
        self.adversary = nn.Linear(self.student_dims.logits, 1)
        self.moves, self.skip = [], False

    def adversary_loss(self, student, teacher, ctx):
        assert not student.logits.requires_grad and not any(h.requires_grad for h in student.hidden)
        self.moves.append([value.detach().clone() for value in self.parameters()])
        if self.skip:
            return None
        return (self.adversary(student.logits) - self.adversary(teacher.logits)).mean()

    def terms(self, student, teacher, ctx):
        fooled = -self.adversary(student.logits).mean()
        return {"task": ctx.task_loss(student.logits), "fool": fooled, "hint": self.projector(student.logits).mean()}


def test_an_adversary_is_trained_in_steps_of_its_own_and_by_nothing_else(cell_of):
    cell = cell_of("multiclass", False, Game)
    start = {name: value.detach().clone() for name, value in cell.method.named_parameters()}
    cell.method.skip = True
    cell.fit(2)
    unmoved = {name for name, value in cell.method.named_parameters() if torch.equal(value, start[name])}
    assert unmoved == {"adversary.weight", "adversary.bias"}

    other = cell_of("multiclass", False, Game)
    other.fit(2)
    assert len(other.method.moves) == 2
    assert not torch.equal(other.method.adversary.weight, start["adversary.weight"])


def test_an_adversary_goes_on_from_a_checkpoint_as_if_nothing_had_happened(cell_of, tmp_path):
    def checkpointing(folder):
        return Checkpointing(tmp_path / folder, "key", every=0)

    whole, first, second = (cell_of("multiclass", False, Game) for _ in range(3))
    whole.fit(4)

    def stop(row, best):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.fit(4, checkpointing=checkpointing("c"), progress=stop)
    second.fit(4, checkpointing=checkpointing("c"))
    assert (len(whole.method.moves), len(second.method.moves)) == (4, 2)  # it had been saved after the second epoch
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[name]), name


def test_a_setup_without_a_teacher_has_nothing_of_it(cell_of):
    cell = cell_of("multiclass", False)
    setup = setup_of(cell.inputs, cell.split, Teaching(), generator(0, "x"))
    assert setup.teacher.hidden == () and setup.teachers == () and setup.new_teacher is None
    with pytest.raises(RuntimeError, match="no model to run"):
        setup.run_teacher(setup.x)
