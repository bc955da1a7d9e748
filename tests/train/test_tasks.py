"""Metrics and how predictions are scored, against scikit-learn."""

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from distillbench.config import USUAL, Evaluation
from distillbench.tasks import TASKS

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
