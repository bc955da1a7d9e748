"""The training loop against one written out here: its steps, what the method is told, and whose turn it is."""

from dataclasses import replace

import pytest
import torch

from distillbench.config.config import Evaluation, Training
from distillbench.data.graph_data import GraphData
from distillbench.distillation.method import Method
from distillbench.models.backends import get_backend
from distillbench.params import ALL_TASKS
from distillbench.seeds import derive, generator
from distillbench.training.fit import Checkpointing, fit
from distillbench.training.inputs import predict
from distillbench.training.steps import Teaching

from .conftest import SETTINGS, Run, Spy


@pytest.fixture
def csr_run(data_of, one_thread):
    """``csr_run(task, clouds, method, **params)``, without a library."""
    return lambda task, clouds=False, method=Spy, **options: Run(
        data_of(task, clouds=clouds), get_backend("csr"), method, **options
    )


def test_an_epoch_is_a_step_of_adam_for_each_batch_on_the_sum_of_the_terms(csr_run):
    """With dropout in every epoch, weight decay, a projector and an evaluation between the epochs."""
    run, same = (csr_run("multilabel", method="fitnet", weight=0.5) for _ in range(2))
    result = fit(
        run.model, run.method, run.inputs, run.split, Training(epochs=3, learning_rate=0.02, weight_decay=0.1),
        seed=0, teaching=Teaching(run.teacher),
    )  # fmt: skip

    ((project, _),) = same.method.projectors
    parameters = [*same.model.parameters(), *project.parameters()]
    adam = torch.optim.Adam(parameters, lr=0.02, weight_decay=0.1)
    order = generator(0, "batches")
    torch.manual_seed(derive(0, "dropout"))
    losses, weights = [], []
    for _ in range(3):
        same.model.train()
        of_epoch = []
        for batch in same.inputs.shuffled(same.split.train, order):
            student, (teacher, _) = same.model(batch.graph, batch.x), same.teacher.of(batch)
            hint = (teacher.hidden[-1] - project(student.hidden[-1])).square().sum(dim=1).mean() / 2
            loss = same.data.task.loss(student.logits, batch.y) + 0.5 * hint
            adam.zero_grad()
            loss.backward()
            adam.step()
            of_epoch.append(loss.item())
        predict(same.model, same.inputs.ordered(same.split.val))
        losses.append(sum(of_epoch) / len(of_epoch))
        weights.append({name: value.clone() for name, value in same.model.state_dict().items()})
    assert len(of_epoch) == 2  # four graphs, two a batch
    assert [row["loss"] for row in result.history] == pytest.approx(losses, rel=1e-6)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, weights[result.best_epoch - 1][name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(list(run.method.parameters()), list(project.parameters()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task, clouds", SETTINGS)
@pytest.mark.parametrize("nodes", ["all", "train"])
def test_a_method_is_told_which_epoch_it_is(csr_run, task, clouds, nodes):
    run = csr_run(task, clouds)
    run.fit(3, distill_nodes=nodes)
    steps = len(run.method.seen) // 3
    assert [ctx.epoch for *_, ctx in run.method.seen] == [epoch for epoch in (1, 2, 3) for _ in range(steps)]


class Duel(Method):
    """The adversary goes down by its Adam's rate each time it moves; the student's term shows where it stands."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset()

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.adversary = torch.nn.Linear(1, 1, bias=False)

    def adversary_loss(self, student, teacher, ctx):
        return self.adversary.weight.sum()

    def terms(self, student, teacher, ctx):
        return {"task": ctx.task_loss(student.logits), "stands": self.adversary.weight.detach().sum()}


def test_an_adversary_moves_before_the_student_by_an_adam_of_its_own(csr_run):
    run = csr_run("multiclass", method=Duel)
    start = run.method.adversary.weight.item()
    rows = run.fit(3, learning_rate=0.05).history
    # of a gradient that stays 1 every step of Adam is the learning rate
    assert [row["stands"] for row in rows] == pytest.approx([start - 0.05 * moves for moves in (1, 2, 3)], rel=1e-5)


class Scripted(Method):
    """Whatever the student does, these are its losses, an epoch each."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset()
    losses = (1.0, 0.5, 0.9, 0.8)

    def terms(self, student, teacher, ctx):
        return {"task": 0 * student.logits.sum() + self.losses[ctx.epoch - 1]}


def test_a_run_that_is_resumed_knows_the_score_and_the_loss_that_it_selected_by(csr_run, tmp_path, monkeypatch):
    """Epoch 2 has the lowest loss and epoch 1 the best score: neither 3 nor 4 has a better one."""
    checkpointing = Checkpointing(tmp_path / "c.pt", "key", every=0.0)

    def best(epochs, scores):
        remaining = iter(scores)
        run = csr_run("multiclass", method=Scripted)
        task = replace(run.inputs.data.task, metric=lambda logits, y: next(remaining))
        with monkeypatch.context() as patched:
            patched.setattr(GraphData, "task", property(lambda self: task))
            evaluation = Evaluation(selection="validation-or-loss")
            result = run.fit(epochs, checkpointing=checkpointing, evaluation=evaluation)
        return result.best_epoch, result.val, [row["loss"] for row in result.history]

    assert best(2, [0.5, 0.4]) == (2, 0.4, pytest.approx([1.0, 0.5]))
    assert best(4, [0.3, 0.2]) == (2, 0.4, pytest.approx(Scripted.losses))
