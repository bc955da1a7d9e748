"""The training loop: every teacher and every student of every method goes through ``fit``.

Adam, early stopping on the validation score, the best epoch's weights kept. The loop never sees a test label: callers
hand it data from which they are removed.
"""

import hashlib
import io
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distillbench.config.config import USUAL, Evaluation, Protocol, Training
from distillbench.data.graph_data import GraphData, Split
from distillbench.distillation.method import Context, Method
from distillbench.durations import spending
from distillbench.models.gnn import Output
from distillbench.record import write_atomically
from distillbench.seeds import derive, generator
from distillbench.training.inputs import Inputs, predict
from distillbench.training.steps import Guidance, Teaching, detached

log = logging.getLogger(__name__)
NO_TEACHING = Teaching()
Progress = Callable[[dict[str, float], int], None]  # an epoch's row of the history, the best epoch so far


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


def evaluation_of(protocol: Protocol, role: str) -> Evaluation:
    """What of a protocol concerns the selection of a teacher, or of a student."""
    own = protocol.model_dump(include=set(Evaluation.model_fields))
    return Evaluation(**own | ({"selection": protocol.teacher_selection} if role == "teacher" else {}))


def fit(
    model: nn.Module,
    method: Method,
    inputs: Inputs,
    split: Split,
    training: Training,
    *,
    seed: int,
    teaching: Teaching = NO_TEACHING,
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
    with a fixed number of threads. ``progress`` gets each epoch's row of the history and the best epoch so far. What a
    method prepares counts as training; its adversary learns at the rate that the student begins with.

    Raises:
        DivergedError: a loss or a prediction is not finite. OutOfTimeError: more than ``run_seconds`` have passed.
    """
    task = inputs.data.task
    begun = time.monotonic()
    torch.manual_seed(derive(seed, "prepare"))
    guidance = Guidance(inputs, method, split, teaching, distill_nodes, generator(seed, "prepare"))
    method.to(inputs.device)
    adversary = _Adversary(method, training.learning_rate)
    own = [p for p in method.parameters() if p.requires_grad and p not in adversary] if train_projectors else []
    optimiser = torch.optim.Adam(
        [*model.parameters(), *own], lr=training.learning_rate, weight_decay=training.weight_decay
    )
    random = {scope: generator(seed, scope) for scope in ("batches", "augment", "method")}
    torch.manual_seed(derive(seed, "dropout"))
    state = _State(model, method, optimiser, random, adversary.optimiser)
    if checkpointing:
        state.resume(checkpointing)
    if state.epoch:
        begun = time.monotonic() - state.seconds
    saved = time.monotonic()

    while state.epoch < training.epochs and not _patience_over(state, training):
        state.epoch += 1
        optimiser.param_groups[0]["lr"] = _learning_rate(training, state.epoch)
        model.train()
        method.train()
        sums: dict[str, float] = {}
        steps = 0
        for batch in inputs.shuffled(split.train, random["batches"], random["augment"]):
            student, teacher, ctx = guidance.step(model, batch, state.epoch, random["method"])
            adversary.step(student, teacher, ctx)
            terms = _checked(method, method.terms(student, teacher, ctx))
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
            with spending("evaluation"):
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
            try:
                state.save(checkpointing)
            except OSError as error:  # a result without a checkpoint is better than none
                log.warning("no checkpoint is written: %s", error)
            saved = time.monotonic()

    model.load_state_dict(state.best_weights)
    return Fit(state.history, state.best_epoch, state.best_val, state.seconds)


def _checked(method: Method, terms: object) -> dict[str, Tensor]:
    """What a method returned, if it is losses by name. Raises TypeError naming the method and the term."""
    name = getattr(method, "name", type(method).__name__)
    if not isinstance(terms, dict) or not terms:
        raise TypeError(f"method {name}: terms returned {terms!r}, not scalar losses by name")
    for term, value in terms.items():
        if not isinstance(value, Tensor) or value.ndim:
            found = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise TypeError(f"method {name}: term {term!r} is {found}, not a scalar tensor")
    return terms


def _learning_rate(training: Training, epoch: int) -> float:
    fall = 1.0 if training.schedule == "constant" else (1 + math.cos(math.pi * (epoch - 1) / training.epochs)) / 2
    return training.learning_rate * fall


def _is_evaluated(epoch: int, training: Training, evaluation: Evaluation) -> bool:
    due = (epoch - 1) % evaluation.validate_every == 0
    return due or (evaluation.selection == "last" and epoch == training.epochs)


def _patience_over(state: "_State", training: Training) -> bool:
    return training.patience is not None and state.epoch - state.best_epoch >= training.patience


class _Adversary:
    """The parts of a method that are trained against the student, if there are any, by an Adam of their own."""

    def __init__(self, method: Method, learning_rate: float) -> None:
        self._method = method
        parameters = [p for module in method.adversaries() for p in module.parameters()]
        self._ids = {id(p) for p in parameters}
        self.optimiser = torch.optim.Adam(parameters, lr=learning_rate) if parameters else None

    def __contains__(self, parameter: nn.Parameter) -> bool:
        return id(parameter) in self._ids

    def step(self, student: Output, teacher: Output, ctx: Context) -> None:
        if self.optimiser is None:
            return
        loss = self._method.adversary_loss(detached(student), teacher, ctx)
        if loss is None:
            return
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()


class _State:
    """Everything a run needs to go on after a kill, and nothing else."""

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        optimiser: torch.optim.Adam,
        random: Mapping[str, torch.Generator],
        adversary: torch.optim.Adam | None,
    ) -> None:
        self._parts: dict[str, Any] = {"model": model, "method": method, "optimiser": optimiser}
        if adversary:
            self._parts["adversary"] = adversary
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
