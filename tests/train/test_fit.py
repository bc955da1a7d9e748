"""The one training loop: deterministic, blind to the test part, resumable, and stopped where it should be."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillbench.config import OFFICIAL, USUAL, Evaluation, Protocol, Training
from distillbench.data import GraphData
from distillbench.inputs import Inputs, predict, teacher_outputs
from distillbench.method import Dims, Method
from distillbench.models import GNN, canonical_state, initialise
from distillbench.params import ALL_TASKS, Parameters
from distillbench.plugins import load
from distillbench.specs import DGCNNSpec, GATSpec, LayeredSpec
from distillbench.steps import Teaching
from distillbench.train import Checkpointing, DivergedError, OutOfTimeError, fit, without_test

METHODS = Path(__file__).parents[2] / "methods"
CPU = torch.device("cpu")
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


# Deterministic


@pytest.mark.parametrize("method", ["supervised", "fitnet", "lsp"])
@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_a_seed_twice_is_the_same_bit_for_bit(run_of, task, clouds, method):
    first, second, other = (run_of(task, clouds, method, seed=seed) for seed in (0, 0, 1))
    fit_first = first.fit()
    torch.rand(7)  # what the process drew before must not matter
    assert_same(first, second, fit_first, second.fit())
    assert without_seconds(fit_first.history) != without_seconds(other.fit().history)
    assert [row["epoch"] for row in fit_first.history] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for row in fit_first.history for value in row.values())


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_a_student_starts_and_is_fed_the_same_whatever_the_method(run_of, monkeypatch, task, clouds):
    seen = {}
    for method in ("supervised", "at", "fitnet"):
        run, batches = run_of(task, clouds, method), []
        start = canonical_state(run.model)
        shuffled = run.inputs.shuffled

        def spy(*arguments, shuffled=shuffled, batches=batches):
            for batch in shuffled(*arguments):
                batches.append(batch.graph_ids.tolist())
                yield batch

        monkeypatch.setattr(run.inputs, "shuffled", spy)
        run.fit(3)
        seen[method] = start, batches
    start, batches = seen["supervised"]
    for other_start, other_batches in seen.values():
        assert all(torch.equal(value, other_start[name]) for name, value in start.items())
        assert other_batches == batches
    assert len(batches) == (3 if task == "multiclass" else 6)


@pytest.mark.parametrize("task, clouds", SETTINGS)
@pytest.mark.parametrize("method", ["supervised", "kd", "fitnet", "at", "lsp"])
def test_both_libraries_train_alike(data_of, backends, record_property, task, clouds, method):
    specs = {"multilabel": LayeredSpec(model="sage", hidden=6, layers=2)}
    runs = [Run(data_of(task, clouds=clouds), backend, method, spec=specs.get(task)) for backend in backends]
    histories = [without_seconds(run.fit(5).history) for run in runs]
    largest = 0.0
    for of_pyg, of_dgl in zip(*histories, strict=True):
        assert of_pyg.keys() == of_dgl.keys()
        largest = max(largest, *(abs(of_pyg[k] - of_dgl[k]) / max(1.0, abs(of_pyg[k])) for k in of_pyg))
    record_property("largest difference in history", largest)
    print(f"\nhistories {method} {task}: {largest:.1e}")
    assert largest < 1e-4


# Blind to the test part


def poisoned(data):
    """Other labels at the test part, and other features of test graphs."""
    y, x, test = data.y.clone(), data.x.clone(), data.split.test
    if data.setting == "inductive":
        graph_of_node = torch.arange(data.num_graphs).repeat_interleave(data.graph_ptr.diff())
        nodes = torch.isin(graph_of_node, test)
        x[nodes] = 1e6
        test = nodes if data.task.level == "node" else test
    y[test] = 1 - y[test] if data.task.multilabel else (y[test] + 1) % data.num_classes
    return replace(data, x=x, y=y)


@pytest.mark.parametrize("method", ["supervised", "kd", "lsp"])
@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_loop_cannot_see_the_test_part(run_of, data_of, task, clouds, method):
    data = data_of(task, clouds=clouds)
    assert not torch.equal(data.y, poisoned(data).y)
    honest, blind = (run_of(task, clouds, method, data=each) for each in (data, poisoned(data)))
    assert_same(honest, blind, honest.fit(), blind.fit())


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_data_for_training_have_no_test_labels_and_no_test_part(data_of, task, clouds):
    data = data_of(task, clouds=clouds)
    visible, split = without_test(data, data.split)
    assert len(split.test) == 0
    assert torch.equal(split.train, data.split.train)
    assert torch.equal(split.val, data.split.val)
    if task == "multilabel":
        graph_of_node = torch.arange(data.num_graphs).repeat_interleave(data.graph_ptr.diff())
        test = torch.isin(graph_of_node, data.split.test)
        assert visible.y[test].isnan().all()
        assert torch.equal(visible.y[~test], data.y[~test])
    else:
        assert visible.y[data.split.test].tolist() == [-1] * len(data.split.test)
        rest = torch.cat([data.split.train, data.split.val])
        assert torch.equal(visible.y[rest], data.y[rest])
    assert not torch.equal(visible.y, data.y)


class Spy(Method):
    """Keeps what it was given."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset({"logits", "hidden", "edges", "labels"})

    def terms(self, student, teacher, ctx):
        self.seen = getattr(self, "seen", [])
        self.seen.append((student, teacher, ctx))
        return {"task": ctx.task_loss(student.logits)}


def test_a_method_sees_the_labels_of_the_training_nodes_only(run_of):
    run = run_of("multiclass", method=Spy)
    run.fit(1)
    ((_, _, ctx),) = run.method.seen
    train = run.split.train
    others = torch.ones(run.data.num_nodes, dtype=torch.bool).index_fill(0, train, False)
    assert torch.equal(ctx.labelled, ~others)
    assert torch.equal(ctx.labels[train], run.data.y[train])
    assert ctx.labels[others].tolist() == [-1] * int(others.sum())


# Selection


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_weights_left_in_the_model_are_those_of_the_best_epoch(run_of, task, clouds):
    run = run_of(task, clouds)
    result = run.fit(12, learning_rate=0.05)
    scores = [row["val"] for row in result.history]
    assert result.val == max(scores)
    assert result.best_epoch == scores.index(max(scores)) + 1  # the earliest of several
    assert run.data.task.score(predict(run.model, run.inputs.ordered(run.split.val)), USUAL) == result.val
    if result.best_epoch > 1:
        again = run_of(task, clouds)
        again.fit(result.best_epoch, learning_rate=0.05)
        state = again.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in run.model.state_dict().items())


def scripted(monkeypatch, run, scores):
    """Let the validation scores be these."""
    remaining = iter(scores)
    task = replace(run.inputs.data.task, metric=lambda logits, y: next(remaining))
    monkeypatch.setattr(GraphData, "task", property(lambda self: task))


@pytest.mark.parametrize(
    "scores, patience, epochs, best",
    [
        ([0.5, 0.4, 0.6, 0.5, 0.6, 0.9], 2, 5, 3),  # 0.6 again is not better
        ([0.5, 0.4, 0.3, 0.2], 3, 4, 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6, 6),
        ([0.5, 0.4, 0.4, 0.4, 0.4, 0.6], None, 6, 6),
        ([0.0, 0.0, 0.0, 0.0], 2, 3, 1),  # a score of zero is a score
    ],
)
def test_training_stops_after_so_many_epochs_without_a_better_score(
    run_of, monkeypatch, scores, patience, epochs, best
):
    run = run_of("multiclass")
    scripted(monkeypatch, run, scores)
    result = run.fit(6 if epochs == 6 else 100, patience=patience)
    assert [row["val"] for row in result.history] == scores[:epochs]
    assert (result.best_epoch, result.val) == (best, scores[best - 1])


def test_progress_gets_every_row_and_the_best_epoch_so_far(run_of, monkeypatch):
    run, calls = run_of("multiclass"), []
    scripted(monkeypatch, run, [0.3, 0.5, 0.4])
    result = run.fit(3, progress=lambda row, best: calls.append((row, best)))
    assert calls == list(zip(result.history, [1, 2, 2], strict=True))


def test_a_row_of_the_history_holds_the_mean_of_every_term_over_the_steps(run_of):
    run = run_of("multilabel", method=Spy)
    (row,) = run.fit(1).history
    losses = [ctx.task_loss(student.logits).item() for student, _, ctx in run.method.seen]
    assert len(losses) == 2  # four graphs, two a batch
    assert row.keys() == {"epoch", "seconds", "loss", "task", "val"}
    assert row["task"] == row["loss"] == sum(losses) / 2


# What is expected to go wrong


class Explosive(Method):
    """A loss that is not a number in its third step."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset()

    class Params(Parameters):
        value: str = "nan"  # as text: a config may hold no such number

    def terms(self, student, teacher, ctx):
        task = ctx.task_loss(student.logits)
        return {"task": task, "boom": task * (float(self.params.value) if ctx.epoch == 3 else 0.0)}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_epoch_and_term(run_of, value):
    run = run_of("multiclass", method=Explosive, value=value)
    with pytest.raises(DivergedError, match=r"epoch 3: .*loss = .*boom = "):
        run.fit(5)


def test_predictions_that_are_not_finite_end_the_run(run_of):
    run = run_of("multiclass")
    with pytest.raises(DivergedError, match="epoch"):
        run.fit(5, learning_rate=1e30)


def test_the_time_budget_ends_the_run(run_of):
    with pytest.raises(OutOfTimeError, match=r"more than 0 s, in epoch 1 of 4"):
        run_of("multiclass").fit(run_seconds=0)


def test_time_spent_before_a_checkpoint_counts(run_of, tmp_path, monkeypatch):
    checkpointing = Checkpointing(tmp_path / "c.pt", "key", every=0.0)
    run_of("multiclass").fit(2, checkpointing=checkpointing)
    spent = iter(range(1000, 10**9))  # a clock that starts anew and shows a second more at every look
    monkeypatch.setattr("distillbench.train.time.monotonic", lambda: float(next(spent)))
    run_of("multiclass").fit(3, checkpointing=checkpointing)
    with pytest.raises(OutOfTimeError, match="in epoch 4"):
        run_of("multiclass").fit(4, checkpointing=checkpointing, run_seconds=3)
    run_of("multiclass").fit(1, checkpointing=replace(checkpointing, key="another"), run_seconds=3)


# Going on after a kill


class Killed(BaseException):
    pass


def kill_after(epoch):
    def progress(row, best_epoch):
        if row["epoch"] == epoch:
            raise Killed

    return progress


@pytest.mark.parametrize("method", ["supervised", "fitnet"])
@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_a_run_resumed_from_a_checkpoint_is_the_uninterrupted_one_bit_for_bit(run_of, tmp_path, task, clouds, method):
    whole, killed, resumed = (run_of(task, clouds, method) for _ in range(3))
    fit_whole = whole.fit(7)
    checkpointing = Checkpointing(tmp_path / "c.pt", "key", every=0.0)
    with pytest.raises(Killed):
        killed.fit(7, checkpointing=checkpointing, progress=kill_after(4))
    epochs = []
    fit_resumed = resumed.fit(7, checkpointing=checkpointing, progress=lambda row, best: epochs.append(row["epoch"]))
    assert epochs == [4, 5, 6, 7]  # the epoch it was killed in was not saved yet
    assert_same(whole, resumed, fit_whole, fit_resumed)


def test_a_finished_run_that_is_resumed_trains_no_more(run_of, tmp_path):
    checkpointing = Checkpointing(tmp_path / "c.pt", "key", every=0.0)
    first, again = run_of("multiclass"), run_of("multiclass")
    fit_first = first.fit(3, checkpointing=checkpointing)
    epochs = []
    fit_again = again.fit(3, checkpointing=checkpointing, progress=lambda row, best: epochs.append(row["epoch"]))
    assert epochs == []
    assert_same(first, again, fit_first, fit_again)


def damaged(content):
    return {
        "of another run": None,
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "not a checkpoint": b"hello",
        "with bits flipped": content[:2000] + bytes(b ^ 255 for b in content[2000:2100]) + content[2100:],
    }


@pytest.mark.parametrize("damage", list(damaged(b"")))
def test_a_checkpoint_that_is_not_ours_or_damaged_is_ignored(run_of, tmp_path, damage):
    path = tmp_path / "c.pt"
    run_of("multiclass").fit(3, checkpointing=Checkpointing(path, "key", every=0.0))
    content = damaged(path.read_bytes())[damage]
    if content is not None:
        path.write_bytes(content)
    whole, other, epochs = run_of("multiclass"), run_of("multiclass"), []
    checkpointing = Checkpointing(path, "another key" if content is None else "key", every=1e9)
    found = other.fit(4, checkpointing=checkpointing, progress=lambda row, best: epochs.append(row["epoch"]))
    assert epochs == [1, 2, 3, 4]
    assert_same(whole, other, whole.fit(4), found)


def test_no_flipped_bit_goes_unnoticed(run_of, tmp_path):
    path = tmp_path / "c.pt"
    run = run_of("multiclass")
    run.fit(1, checkpointing=Checkpointing(path, "key", every=0.0))
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        epochs = []
        run.fit(1, checkpointing=Checkpointing(path, "key"), progress=lambda row, best, e=epochs: e.append(1))
        assert epochs == [1], place


def test_no_checkpoint_is_written_before_its_time(run_of, tmp_path):
    run_of("multiclass").fit(3, checkpointing=Checkpointing(tmp_path / "c.pt", "key", every=1e9))
    assert list(tmp_path.iterdir()) == []


# Which nodes the distillation sees


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


# The teacher


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_no_step_runs_a_teacher(run_of, monkeypatch, task, clouds):
    run, forwards = run_of(task, clouds, "lsp"), []
    forward = GNN.forward

    def counted(model, graph, x):
        forwards.append((model, model.training))
        return forward(model, graph, x)

    monkeypatch.setattr(GNN, "forward", counted)
    run.fit(3)
    assert all(model is run.model for model, _ in forwards)
    steps = 1 if task == "multiclass" else 2  # four graphs for training, two a batch
    assert sum(training for _, training in forwards) == 3 * steps
    assert not isinstance(run.teacher, torch.nn.Module)


def test_the_random_state_of_dropout_does_not_depend_on_the_method(run_of, monkeypatch):
    drawn = {}
    for method in ("supervised", "fitnet"):
        dropout, masks = torch.nn.functional.dropout, []

        def spy(x, p, training, *rest, dropout=dropout, masks=masks):
            out = dropout(x, p, training, *rest)
            if training and p > 0:
                masks.append(out == 0)
            return out

        run = run_of("multiclass", method=method)
        monkeypatch.setattr(torch.nn.functional, "dropout", spy)
        run.fit(1)
        monkeypatch.undo()
        drawn[method] = masks[0]
    assert torch.equal(drawn["supervised"], drawn["fitnet"])
    assert 0 < drawn["fitnet"].float().mean() < 1


# Selection and evaluation otherwise than usual


def scores(result, column="val"):
    return {int(row["epoch"]): row[column] for row in result.history if column in row}


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_selection_last_leaves_the_last_weights(run_of, task, clouds):
    run, same = run_of(task, clouds), run_of(task, clouds)
    result = run.fit(8, learning_rate=0.05, evaluation=Evaluation(selection="last", validate_every=3))
    weights = {}

    def keep(row, best_epoch):
        weights.update({name: value.clone() for name, value in same.model.state_dict().items()})

    same.fit(8, learning_rate=0.05, progress=keep)
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())
    assert sorted(scores(result)) == [1, 4, 7, 8]
    assert (result.best_epoch, result.val) == (8, scores(result)[8])


def test_selection_by_validation_or_loss_is_that_of_the_released_code(run_of):
    run = run_of("multilabel")
    result = run.fit(20, learning_rate=0.05, evaluation=Evaluation(selection="validation-or-loss", validate_every=2))
    val, loss = scores(result), scores(result, "loss")
    assert sorted(val) == list(range(1, 21, 2))
    best_score, best_loss, selected = 0.0, 1000.0, None  # as main.py has it: both are replaced together
    for epoch, score in val.items():
        if score > best_score or loss[epoch] < best_loss:
            best_score, best_loss, selected = score, loss[epoch], epoch
    assert result.best_epoch == selected
    assert result.val == val[selected] < max(val.values())  # a lower loss took the place of a better score


def test_an_epoch_that_is_not_evaluated_is_never_selected(run_of):
    result = run_of("multiclass").fit(9, evaluation=Evaluation(validate_every=4))
    assert sorted(scores(result)) == [1, 5, 9]
    assert result.best_epoch in (1, 5, 9)
    assert result.val == max(scores(result).values())


def test_official_is_what_the_released_code_does():
    protocol = Protocol(**OFFICIAL)
    assert protocol.evaluation("teacher") == Evaluation(
        decision="logit", score="batches", selection="last", validate_every=10
    )
    assert protocol.evaluation("student").selection == "validation-or-loss"
    assert Protocol().evaluation("teacher") == Protocol().evaluation("student") == USUAL
    assert not protocol.train_projectors


@pytest.mark.parametrize("train_projectors", [True, False])
def test_projectors_are_trained_unless_the_protocol_says_no(run_of, train_projectors):
    run = run_of("multilabel", method="fitnet")
    before = [parameter.clone() for parameter in run.method.parameters()]
    run.fit(2, train_projectors=train_projectors)
    changed = [not torch.equal(a, b) for a, b in zip(before, run.method.parameters(), strict=True)]
    assert changed
    assert all(changed) if train_projectors else not any(changed)


def test_a_cosine_schedule_falls_from_the_learning_rate_to_nothing(run_of, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    run = run_of("multiclass")
    training = Training(epochs=4, learning_rate=0.1, schedule="cosine")
    fit(run.model, run.method, run.inputs, run.split, training, seed=0)
    expected = [0.1 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates == pytest.approx(expected)


# Augmentation


def test_training_sees_augmented_features_and_evaluation_and_teacher_do_not(run_of):
    seen = []

    def augment(x, ptr, random):
        seen.append((x.clone(), ptr.tolist()))
        return x + 1000 * torch.rand(len(x), 1, generator=random)

    run = run_of("graph-multiclass", True)
    run.inputs.augment = augment
    inputs = []
    run.model.register_forward_pre_hook(lambda model, arguments: inputs.append((model.training, arguments[1])))
    run.fit(3)
    in_training = [x for training, x in inputs if training]
    assert len(in_training) == len(seen) == 6
    for x, (original, ptr) in zip(in_training, seen, strict=True):
        assert ptr[-1] == len(x)
        assert ((x - original) > 1).float().mean() > 0.9
    assert all(x.abs().max() < 100 for training, x in inputs if not training)
    assert teacher_outputs(run.model, run.inputs, run.split.train).hidden[0].abs().max() < 100
    assert len(seen) == 6


def test_augmentation_is_the_same_for_a_seed_and_after_a_resume(run_of, tmp_path):
    def augment(x, ptr, random):
        return x + torch.randn(x.shape, generator=random)

    def prepared():
        run = run_of("graph-multiclass", True)
        run.inputs.augment = augment
        return run

    whole, begun, resumed = prepared(), prepared(), prepared()
    expected = whole.fit(6)
    plain = run_of("graph-multiclass", True).fit(6)
    assert without_seconds(expected.history) != without_seconds(plain.history)
    checkpointing = Checkpointing(tmp_path / "checkpoint.pt", "key", every=0)
    begun.fit(3, checkpointing=checkpointing)
    assert_same(whole, resumed, expected, resumed.fit(6, checkpointing=checkpointing))
