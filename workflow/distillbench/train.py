"""The training loop: every teacher and every student of every method goes through ``fit``.

Adam, early stopping on the validation score, the best epoch's weights kept. The loop never sees a test label: callers
hand it data from which they are removed.
"""

import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distillbench.config import USUAL, Evaluation, Training
from distillbench.data import GraphData, Split
from distillbench.inputs import Batch, Inputs, TeacherOutputs, predict
from distillbench.method import Context, Method
from distillbench.models import Output
from distillbench.record import write_atomically
from distillbench.seeds import derive, generator

Progress = Callable[[dict[str, float], int], None]  # an epoch's row of the history, the best epoch so far

NO_TEACHER = Output(torch.empty(0), (), ())


class RunError(RuntimeError):
    """A run that ends early for a reason that can be expected; ``history`` is what there was of it until then."""

    def __init__(self, message: str, history: list[dict[str, float]]) -> None:
        super().__init__(message)
        self.history = history


class DivergedError(RunError):
    """A loss or a prediction that is not a number."""


class OutOfTimeError(RunError):
    """The run exceeded its time budget."""


@dataclass(frozen=True)
class Checkpointing:
    """Where a long run is saved, how often (seconds), and the key that says whose it is."""

    path: Path
    key: str
    every: float = 60.0


@dataclass(frozen=True)
class Fit:
    """What came of a training run; the model holds the best epoch's weights. history: one row per epoch."""

    history: list[dict[str, float]]
    best_epoch: int
    val: float
    seconds: float


def silent(row: dict[str, float], best_epoch: int) -> None:
    """Report no progress."""


def without_test(data: GraphData, split: Split) -> tuple[GraphData, Split]:
    """The data with the labels of the test part removed, and the split without that part."""
    rows = split.test
    if data.setting == "inductive" and data.task.level == "node":
        graph_of_node = torch.arange(data.num_graphs).repeat_interleave(data.graph_ptr.diff())
        rows = torch.isin(graph_of_node, split.test)
    return replace(data, y=data.task.hide(data.y, rows)), split._replace(test=split.test[:0])


def fit(
    model: nn.Module,
    method: Method,
    inputs: Inputs,
    split: Split,
    training: Training,
    *,
    seed: int,
    teacher: TeacherOutputs | None = None,
    distill_nodes: Literal["all", "train"] = "all",
    evaluation: Evaluation = USUAL,
    train_projectors: bool = True,
    run_seconds: float = float("inf"),
    checkpointing: Checkpointing | None = None,
    progress: Progress = silent,
) -> Fit:
    """Train ``model`` (and the method's projectors) and leave the weights of the best validation epoch in it.

    The epoch with the highest validation metric is kept, the earliest of several, unless ``evaluation`` selects
    otherwise; a row of the history has a ``val`` only where there was an evaluation. Deterministic for a seed on a CPU
    with a fixed number of threads. ``progress`` gets each epoch's row of the history and the best epoch so far.

    Raises:
        DivergedError: a loss or a prediction is not finite. OutOfTimeError: more than ``run_seconds`` have passed.
    """
    task = inputs.data.task
    step_inputs = _Steps(inputs, method, split, teacher, distill_nodes)
    trained = [*model.parameters(), *(method.parameters() if train_projectors else [])]
    optimiser = torch.optim.Adam(trained, lr=training.learning_rate, weight_decay=training.weight_decay)
    random = {scope: generator(seed, scope) for scope in ("batches", "augment", "method")}
    torch.manual_seed(derive(seed, "dropout"))
    state = _State(model, method, optimiser, random)
    if checkpointing:
        state.resume(checkpointing)
    begun, saved = time.monotonic() - state.seconds, time.monotonic()

    while state.epoch < training.epochs and not _patience_over(state, training):
        state.epoch += 1
        optimiser.param_groups[0]["lr"] = _learning_rate(training, state.epoch)
        model.train()
        method.train()
        sums: dict[str, float] = {}
        steps = 0
        for batch in inputs.shuffled(split.train, random["batches"], random["augment"]):
            terms = step_inputs.terms(model(batch.graph, batch.x), batch, state.epoch, random["method"])
            loss = torch.stack(list(terms.values())).sum()
            values = {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}
            if not loss.isfinite():
                shown = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
                raise DivergedError(f"epoch {state.epoch}: {shown}", state.history)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
            steps += 1
            if time.monotonic() - begun > run_seconds:
                late = f"more than {run_seconds:g} s, in epoch {state.epoch} of {training.epochs}"
                raise OutOfTimeError(late, state.history)
        val = {}
        if _is_evaluated(state.epoch, training, evaluation):
            predictions = predict(model, inputs.ordered(split.val))
            if not all(logits.isfinite().all() for logits, _ in predictions):
                raise DivergedError(
                    f"epoch {state.epoch}: predictions on the validation part are not finite", state.history
                )
            val = {"val": task.score(predictions, evaluation)}
        state.seconds = time.monotonic() - begun
        means = {name: total / steps for name, total in sums.items()}
        row = {"epoch": state.epoch, "seconds": round(state.seconds, 4), **means, **val}
        state.note(row, model, evaluation)
        progress(row, state.best_epoch)
        if checkpointing and time.monotonic() - saved > checkpointing.every:
            state.save(checkpointing)
            saved = time.monotonic()

    model.load_state_dict(state.best_weights)
    return Fit(state.history, state.best_epoch, state.best_val, state.seconds)


def _learning_rate(training: Training, epoch: int) -> float:
    fall = 1.0 if training.schedule == "constant" else (1 + math.cos(math.pi * (epoch - 1) / training.epochs)) / 2
    return training.learning_rate * fall


def _is_evaluated(epoch: int, training: Training, evaluation: Evaluation) -> bool:
    due = (epoch - 1) % evaluation.validate_every == 0
    return due or (evaluation.selection == "last" and epoch == training.epochs)


def _patience_over(state: "_State", training: Training) -> bool:
    return training.patience is not None and state.epoch - state.best_epoch >= training.patience


class _State:
    """Everything a run needs to go on after a kill, and nothing else."""

    def __init__(
        self, model: nn.Module, method: Method, optimiser: torch.optim.Adam, random: Mapping[str, torch.Generator]
    ) -> None:
        self._parts: dict[str, Any] = {"model": model, "method": method, "optimiser": optimiser}
        self._random = random
        self.epoch, self.best_epoch, self.best_val, self.seconds = 0, 0, -1.0, 0.0
        self.best_loss = float("inf")  # of the selected epoch
        self.history: list[dict[str, float]] = []
        self.best_weights: dict[str, Tensor] = {}

    def note(self, row: dict[str, float], model: nn.Module, evaluation: Evaluation) -> None:
        self.history.append(row)
        if "val" not in row:
            return
        better = row["val"] > self.best_val
        if evaluation.selection == "validation-or-loss":
            better = better or row["loss"] < self.best_loss
        if better or evaluation.selection == "last":
            self.best_val, self.best_loss, self.best_epoch = row["val"], row["loss"], self.epoch
            self.best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def save(self, checkpointing: Checkpointing) -> None:
        content = {
            "key": checkpointing.key,
            **{name: part.state_dict() for name, part in self._parts.items()},
            "random": {name: each.get_state() for name, each in self._random.items()},
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            **{name: value for name, value in vars(self).items() if not name.startswith("_")},
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        checksum = hashlib.sha256(buffer.getvalue()).digest()  # torch.load does not notice a flipped bit
        write_atomically(checkpointing.path, checksum + buffer.getvalue())

    def resume(self, checkpointing: Checkpointing) -> None:
        """Go on from a checkpoint with this key; one that is not ours or not readable is left alone and ignored."""
        sealed = checkpointing.path.read_bytes() if checkpointing.path.is_file() else b""
        checksum, packed = sealed[:32], sealed[32:]
        if hashlib.sha256(packed).digest() != checksum:  # none, or damaged: the run starts anew
            return
        content = torch.load(io.BytesIO(packed), weights_only=True, map_location="cpu")
        if content.pop("key") != checkpointing.key:
            return
        for name, part in self._parts.items():
            part.load_state_dict(content.pop(name))
        for name, state in content.pop("random").items():
            self._random[name].set_state(state)
        torch.set_rng_state(content.pop("torch_random"))
        torch.cuda.set_rng_state_all(content.pop("cuda_random"))
        for name, value in content.items():
            setattr(self, name, value)


class _Steps:
    """Applies a method to a step: what the student computed, the teacher's part of the batch, and the context.

    In a transductive task with ``distill_nodes: train`` the terms see the subgraph induced by the training nodes.
    """

    def __init__(
        self, inputs: Inputs, method: Method, split: Split, teacher: TeacherOutputs | None, distill_nodes: str
    ) -> None:
        self.inputs, self.method, self.teacher = inputs, method, teacher
        self.nodes = split.train.sort().values if inputs.transductive and distill_nodes == "train" else None
        self._constant: tuple[Output, Context] | None = None
        if teacher is not None:
            output, edge_index = teacher.output, teacher.edge_index
            if self.nodes is not None:
                edge_index = _induced(edge_index, self.nodes, int(teacher.ptr[-1]))
                output = _restricted(output, self.nodes, edge_index)
            with torch.no_grad():
                self.teacher = replace(teacher, precomputed=method.precompute(output, edge_index))

    def terms(self, student: Output, batch: Batch, epoch: int, random: torch.Generator) -> dict[str, Tensor]:
        if self.inputs.transductive:
            if self._constant is None:
                self._constant = self._whole_graph(batch, random)
            teacher, ctx = self._constant
            if self.nodes is not None:
                student = _restricted(student, self.nodes.to(batch.x.device), ctx.edge_index)
            return self.method.terms(student, teacher, replace(ctx, epoch=epoch))
        teacher, precomputed = self.teacher.of(batch) if self.teacher else (NO_TEACHER, {})
        labelled = torch.ones(len(batch.y), dtype=torch.bool, device=batch.x.device)
        ctx = self._context(batch.y, labelled, batch.graph.edge_index, len(batch.x), random, precomputed)
        return self.method.terms(student, teacher, replace(ctx, epoch=epoch))

    def _whole_graph(self, batch: Batch, random: torch.Generator) -> tuple[Output, Context]:
        device, edge_index, y = batch.x.device, batch.graph.edge_index, batch.y
        labelled = torch.zeros(len(y), dtype=torch.bool, device=device)
        labelled[batch.rows] = True
        teacher, precomputed = NO_TEACHER, {}
        if self.teacher is not None:
            stored = self.teacher
            drawn = stored.edges and tuple(edges.to(device).long() for edges in stored.edges)
            hidden = tuple(h.to(device) for h in stored.hidden)
            teacher = Output(stored.logits.to(device), hidden, drawn or (edge_index,) * len(hidden))
            precomputed = {name: value.to(device) for name, value in stored.precomputed.items()}
        y = self.inputs.data.task.hide(y, ~labelled)  # a method is not to see the labels it is selected by
        if self.nodes is not None:
            nodes = self.nodes.to(device)
            edge_index = _induced(edge_index, nodes, len(y))
            y, labelled = y[nodes], labelled[nodes]
            teacher = _restricted(teacher, nodes, edge_index) if self.teacher is not None else teacher
        return teacher, self._context(y, labelled, edge_index, len(y), random, precomputed)

    def _context(
        self,
        y: Tensor,
        labelled: Tensor,
        edges: Tensor,
        nodes: int,
        random: torch.Generator,
        stored: Mapping[str, Tensor],
    ) -> Context:
        return Context(self.inputs.data.task, y, labelled, edges, nodes, 0, random, stored)


def _restricted(out: Output, nodes: Tensor, edge_index: Tensor) -> Output:
    edges = tuple(edge_index if used.shape[1] else used for used in out.edge_index)
    return Output(out.logits[nodes], tuple(h[nodes] for h in out.hidden), edges)


def _induced(edge_index: Tensor, nodes: Tensor, num_nodes: int) -> Tensor:
    """Edges among ``nodes``, renumbered in their order, sorted by destination."""
    place = edge_index.new_full((num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    edges = place[edge_index]
    edges = edges[:, (edges >= 0).all(dim=0)]
    return edges[:, torch.argsort(edges[1] * len(nodes) + edges[0])]
