"""Metrics and how predictions are scored, against scikit-learn."""

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from distillbench.config.config import USUAL, Evaluation
from distillbench.data.tasks import TASKS, roc_auc, task_of
from distillbench.params import METRICS

RANDOM = torch.Generator().manual_seed(0)
LOGITS, CLASSES = (
    torch.randn(60, 4, generator=RANDOM),
    torch.randint(3, (60,), generator=RANDOM),
)  # class 3 is never true
LABELS = (torch.rand(60, 4, generator=RANDOM) < 0.4).float()


@pytest.mark.parametrize("name", ["multiclass", "graph-multiclass"])
def test_one_class_is_scored_by_accuracy_overall_and_by_class(name):
    found = TASKS[name].metrics(LOGITS, CLASSES)
    predicted = LOGITS.argmax(-1)
    assert found["accuracy"] == pytest.approx(accuracy_score(CLASSES, predicted))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(CLASSES, predicted))
    assert found["accuracy"] != pytest.approx(found["mean_class_accuracy"])


@pytest.mark.parametrize("decision, threshold", [("probability", 0.5), ("logit", 0.6224593)])
def test_several_labels_are_scored_by_micro_f1_at_a_probability(decision, threshold):
    expected = f1_score(LABELS, LOGITS.sigmoid() >= threshold, average="micro")
    found = TASKS["multilabel"].score([(LOGITS, LABELS)], Evaluation(decision=decision))
    assert found == pytest.approx(expected)


def test_the_decision_rule_is_of_several_labels_only():
    scored = [TASKS["multiclass"].score([(LOGITS, CLASSES)], Evaluation(decision=d)) for d in ("probability", "logit")]
    assert scored[0] == scored[1]


def test_a_score_is_of_all_rows_at_once_or_the_mean_over_batches():
    task = TASKS["multilabel"]
    batches = [(LOGITS[:10], LABELS[:10]), (LOGITS[10:], LABELS[10:])]
    assert task.score(batches, USUAL) == pytest.approx(f1_score(LABELS, LOGITS >= 0, average="micro"))
    each = [f1_score(labels, logits >= 0, average="micro") for logits, labels in batches]
    assert task.score(batches, Evaluation(score="batches")) == pytest.approx(sum(each) / 2)
    assert each[0] != pytest.approx(each[1])


@pytest.mark.parametrize("levels", [2, 3, 10, None])  # few levels: many ties
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_roc_auc_is_that_of_scikit_learn_with_ties(levels, share):
    random = torch.Generator().manual_seed(1)
    y = (torch.rand(200, generator=random) < share).long()
    y[:2] = torch.tensor([0, 1])
    logits = torch.randn(200, 2, generator=random) + 0.3 * y[:, None] * torch.tensor([-1.0, 1.0])
    if levels:
        logits = torch.stack([torch.zeros(200), (logits[:, 1] * levels / 4).round()], dim=1)
    expected = roc_auc_score(y, (logits[:, 1].double() - logits[:, 0].double()).numpy())
    assert roc_auc(logits, y) == pytest.approx(expected, abs=1e-12)
    assert roc_auc(-logits, y) == pytest.approx(1 - expected, abs=1e-12)
    assert roc_auc(logits + 1e3, y) == pytest.approx(expected, abs=2e-3)  # the difference counts, not a logit


def test_roc_auc_by_hand():
    logits = torch.tensor([[0.0, 3], [1, 2], [0, 1], [0, 0]])  # scores 3, 1, 1, 0
    assert roc_auc(logits, torch.tensor([1, 1, 0, 0])) == 3.5 / 4
    assert roc_auc(logits, torch.tensor([0, 0, 1, 1])) == 0.5 / 4
    assert roc_auc(torch.zeros(4, 2), torch.tensor([1, 0, 0, 0])) == 0.5
    for y in (0, 1):  # undefined: half is what guessing scores
        assert roc_auc(logits, torch.full((4,), y)) == 0.5


def test_another_metric_than_the_tasks_own_changes_the_score_and_nothing_else():
    y = CLASSES.clamp(max=1)
    for name in ("multiclass", "graph-multiclass"):
        plain, task = task_of(name), task_of(name, "roc_auc")
        assert plain is TASKS[name] is task_of(name, METRICS[name])
        assert (task.name, task.level, task.loss, task.multilabel) == (name, plain.level, plain.loss, False)
        assert (plain.metric_name, task.metric_name) == (METRICS[name], "roc_auc")
        found = task.metrics(LOGITS[:, :2], y)
        assert found == {"roc_auc": roc_auc(LOGITS[:, :2], y)} | plain.metrics(LOGITS[:, :2], y)
        assert task.score([(LOGITS[:, :2], y)], USUAL) == found["roc_auc"]
        assert task is task_of(name, "roc_auc")
    assert {name: task.metric_name for name, task in TASKS.items()} == METRICS


def test_roc_auc_of_batches_is_their_mean_where_a_batch_has_one_class_only():
    batches = [(LOGITS[:3, :2], torch.tensor([0, 1, 0])), (LOGITS[3:5, :2], torch.tensor([1, 1]))]
    found = task_of("graph-multiclass", "roc_auc").score(batches, Evaluation(score="batches"))
    assert found == pytest.approx((roc_auc(*batches[0]) + 0.5) / 2)
