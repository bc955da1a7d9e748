"""Tasks: loss, decision rule and metric, the same for every method and library.

The metrics are three lines each and tested against scikit-learn; torchmetrics would cost every training process more
start-up time (5 s) than most runs take to train.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from distillbench.config.config import Evaluation
from distillbench.params import TaskName


@dataclass(frozen=True)
class Task:
    """What is predicted and how it is scored.

    ``loss(logits, y)`` is a mean over the rows; ``metric(logits, y)``, and ``more`` metrics that are recorded with it,
    are fractions in [0, 1] over all rows at once. ``logits`` is [M, C]; ``y`` is [M] int64 (one class) or [M, C] float
    in {0, 1} (several labels).
    """

    name: TaskName
    level: str  # "node" or "graph": what a row of the logits stands for
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], float]
    more: tuple[Callable[[Tensor, Tensor], float], ...] = ()
    multilabel: bool = False

    @property
    def metric_name(self) -> str:
        """Name of the metric."""
        return self.metric.__name__

    def metrics(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """All metrics by name."""
        return {each.__name__: each(logits, y) for each in (self.metric, *self.more)}

    def score(self, predictions: Sequence[tuple[Tensor, Tensor]], evaluation: Evaluation) -> float:
        """The metric of (logits, y) pairs, one for each batch, as ``evaluation`` has it scored."""
        shift = self._shift(evaluation)
        if evaluation.score == "batches":
            return sum(self.metric(logits - shift, y) for logits, y in predictions) / len(predictions)
        logits, y = (torch.cat(parts) for parts in zip(*predictions, strict=True))
        return self.metric(logits - shift, y)

    def decide(self, logits: Tensor, evaluation: Evaluation) -> Tensor:
        """What is predicted, as ``evaluation`` has it scored: classes [M] int64, or labels [M, C] bool."""
        return logits - self._shift(evaluation) >= 0 if self.multilabel else logits.argmax(dim=-1)

    def _shift(self, evaluation: Evaluation) -> float:
        return 0.5 if self.multilabel and evaluation.decision == "logit" else 0.0

    def hide(self, y: Tensor, rows: Tensor) -> Tensor:
        """A copy of ``y`` in which ``rows`` hold no label: -1, or NaN for several labels."""
        hidden = y.clone()
        hidden[rows] = float("nan") if self.multilabel else -1
        return hidden


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of rows whose largest logit is at the true class."""
    return (logits.argmax(dim=-1) == y).double().mean().item()


def mean_class_accuracy(logits: Tensor, y: Tensor) -> float:
    """Mean, over the classes that occur in ``y``, of the share of their rows whose largest logit is at that class."""
    right = (logits.argmax(dim=-1) == y).double()
    rows = torch.zeros(logits.shape[-1], dtype=torch.float64, device=y.device).index_add(0, y, torch.ones_like(right))
    hits = torch.zeros_like(rows).index_add(0, y, right)
    return (hits[rows > 0] / rows[rows > 0]).mean().item()


def micro_f1(logits: Tensor, y: Tensor) -> float:
    """Micro-averaged F1 over all rows and labels; a label is predicted at probability 0.5 (logit 0).

    0 where nothing is true and nothing predicted.
    """
    predicted, true = logits >= 0, y > 0.5
    hits, marked = (predicted & true).sum().item(), predicted.sum().item() + true.sum().item()
    return 2 * hits / marked if marked else 0.0


def roc_auc(logits: Tensor, y: Tensor) -> float:
    """Share of the pairs of a row of class 1 and one of class 0 whose scores are in that order, ties counted half.

    The score is logit 1 minus logit 0. 0.5 where only one of the two classes occurs, as it can in a batch.
    """
    score = logits[:, 1].double() - logits[:, 0].double()
    positive, negative = score[y == 1], score[y == 0].sort().values
    if not len(positive) or not len(negative):
        return 0.5
    lower, not_higher = (torch.searchsorted(negative, positive, right=ties).sum().item() for ties in (False, True))
    return (lower + not_higher) / (2 * len(positive) * len(negative))


TASKS: dict[str, Task] = {
    "multiclass": Task("multiclass", "node", F.cross_entropy, accuracy, (mean_class_accuracy,)),
    "multilabel": Task("multilabel", "node", F.binary_cross_entropy_with_logits, micro_f1, multilabel=True),
    "graph-multiclass": Task("graph-multiclass", "graph", F.cross_entropy, accuracy, (mean_class_accuracy,)),
}
OTHER_METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {"roc_auc": roc_auc}  # params.MORE_METRICS


@cache
def task_of(name: str, metric: str = "") -> Task:
    """The task, scored by ``metric`` where a data set asks for another than its own, which is recorded all the same."""
    task = TASKS[name]
    if metric in ("", task.metric_name):
        return task
    return replace(task, metric=OTHER_METRICS[metric], more=(task.metric, *task.more))
