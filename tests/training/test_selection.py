"""Which epoch's weights a run keeps, when it stops, and what it is evaluated by."""

import math
from dataclasses import replace

import pytest
import torch

from distillbench.config.config import OFFICIAL, USUAL, Evaluation, Protocol, Training
from distillbench.data.graph_data import GraphData
from distillbench.training.fit import evaluation_of, fit
from distillbench.training.inputs import predict

from .conftest import SETTINGS, Spy

# Selection


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_weights_left_in_the_model_are_those_of_the_best_epoch(run_of, task, clouds):
    run = run_of(task, clouds)
    result = run.fit(12, learning_rate=0.05)
    scores = [row["val"] for row in result.history]
    assert result.val == max(scores)
    assert result.best_epoch == scores.index(max(scores)) + 1  # the earliest of several
    assert run.data.task.score(predict(run.model, run.inputs.ordered(run.split.val)), USUAL) == result.val


def scripted(monkeypatch, run, scores):
    """Let the validation scores be these."""
    remaining = iter(scores)
    task = replace(run.inputs.data.task, metric=lambda logits, y: next(remaining))
    monkeypatch.setattr(GraphData, "task", property(lambda self: task))


@pytest.mark.parametrize("task, clouds", SETTINGS)
def test_the_weights_of_epochs_before_and_after_the_best_are_not_left(run_of, monkeypatch, task, clouds):
    run, weights = run_of(task, clouds), []
    scripted(monkeypatch, run, [0.5, 0.7, 0.6])

    def keep(row, best_epoch):
        weights.append({name: value.clone() for name, value in run.model.state_dict().items()})

    run.fit(3, learning_rate=0.05, progress=keep)
    left = run.model.state_dict()
    same = [all(torch.equal(value, left[name]) for name, value in of_epoch.items()) for of_epoch in weights]
    assert same == [False, True, False]


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
    found = scores(result)
    assert sorted(found) == [1, 5, 9]
    assert (result.best_epoch, result.val) == (max(found, key=found.get), max(found.values()))  # the first of several


def test_official_is_what_the_released_code_does():
    protocol = Protocol(**OFFICIAL)
    assert evaluation_of(protocol, "teacher") == Evaluation(
        decision="logit", score="batches", selection="last", validate_every=10
    )
    assert evaluation_of(protocol, "student").selection == "validation-or-loss"
    assert evaluation_of(Protocol(), "teacher") == evaluation_of(Protocol(), "student") == USUAL
    assert not protocol.train_projectors


@pytest.mark.parametrize("train_projectors", [True, False])
def test_projectors_are_trained_unless_the_protocol_says_no(run_of, train_projectors):
    run = run_of("multilabel", method="fitnet")
    before = [parameter.clone() for parameter in run.method.parameters()]
    run.fit(2, train_projectors=train_projectors)
    changed = [not torch.equal(a, b) for a, b in zip(before, run.method.parameters(), strict=True)]
    assert changed == [train_projectors] * 2  # weight and bias of the one projector


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
