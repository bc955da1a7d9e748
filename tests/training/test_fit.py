"""The one training loop: deterministic, blind to the test part, and what goes wrong in it."""

import math
from dataclasses import replace

import pytest
import torch

from distillbench.config.specs import LayeredSpec
from distillbench.distillation.method import Method
from distillbench.models.gnn import canonical_state
from distillbench.params import ALL_TASKS, Parameters
from distillbench.training.fit import Checkpointing, DivergedError, OutOfTimeError, without_test
from distillbench.training.inputs import teacher_outputs

from .conftest import SETTINGS, Run, Spy, assert_same, without_seconds

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


def test_a_method_sees_the_labels_of_the_training_nodes_only(run_of):
    run = run_of("multiclass", method=Spy)
    run.fit(1)
    ((_, _, ctx),) = run.method.seen
    train = run.split.train
    others = torch.ones(run.data.num_nodes, dtype=torch.bool).index_fill(0, train, False)
    assert torch.equal(ctx.labelled, ~others)
    assert torch.equal(ctx.labels[train], run.data.y[train])
    assert ctx.labels[others].tolist() == [-1] * int(others.sum())


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


class Mistaken(Method):
    """Terms that are no losses."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset()

    class Params(Parameters):
        what: str

    def terms(self, student, teacher, ctx):
        wrong = {"empty": {}, "nothing": None, "rows": {"rows": student.logits.sum(1)}, "number": {"number": 1.0}}
        return wrong[self.params.what]


@pytest.mark.parametrize(
    "what, said",
    [
        ("empty", "terms returned {}, not scalar losses by name"),
        ("nothing", "terms returned None"),
        ("rows", r"term 'rows' is a tensor of shape \[\d+\], not a scalar tensor"),
        ("number", "term 'number' is 1.0, not a scalar tensor"),
    ],
)
def test_a_method_whose_terms_are_no_losses_is_named_with_the_term(run_of, what, said):
    with pytest.raises(TypeError, match=f"method Mistaken: {said}"):
        run_of("multiclass", method=Mistaken, what=what).fit(1)


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
    monkeypatch.setattr("distillbench.training.fit.time.monotonic", lambda: float(next(spent)))
    run_of("multiclass").fit(3, checkpointing=checkpointing)
    with pytest.raises(OutOfTimeError, match="in epoch 4"):
        run_of("multiclass").fit(4, checkpointing=checkpointing, run_seconds=3)
    run_of("multiclass").fit(1, checkpointing=replace(checkpointing, key="another"), run_seconds=3)


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
