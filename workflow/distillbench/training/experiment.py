"""One run, from seed to result: split, initial weights, training, selection, one look at the test part, or none.

What a seed fixes (split, teacher, initial weights, batch order) depends neither on the method nor on the library.
"""

import io
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillbench.calibration import calibration
from distillbench.config.config import Evaluation, Protocol, Training
from distillbench.config.specs import Spec, read_spec
from distillbench.data.graph_data import GraphData, read_data
from distillbench.data.neighbours import static_neighbours
from distillbench.data.production import divided, extended, observed, place, with_features, with_labels
from distillbench.distillation.combination import Combined, load_method
from distillbench.distillation.method import Dims, Method, TaskLossOnly
from distillbench.durations import spending
from distillbench.models.backends import get_backend
from distillbench.models.gnn import (
    GNN,
    canonical_state,
    count_parameters,
    initialise,
    initialise_around,
    load_canonical,
)
from distillbench.params import Parameters
from distillbench.plugins import PluginError, load
from distillbench.predictions import Part, PartName
from distillbench.record import RecordError, printable
from distillbench.seeds import derive, generator
from distillbench.training.allocator import keep_freed_memory
from distillbench.training.fit import (
    Checkpointing,
    DivergedError,
    Fit,
    OutOfTimeError,
    Progress,
    evaluation_of,
    fit,
    silent,
    without_test,
)
from distillbench.training.inputs import (
    Inputs,
    TeacherOutputs,
    load_outputs,
    load_tensors,
    predict,
    ranges,
    teacher_outputs,
)
from distillbench.training.steps import Teaching, setup_of, subgraph

log = logging.getLogger("distillbench")
# a path in somebody's code that is wrong each time, not a disk that is full or away for a while
_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class Outcome:
    """What came of a run. split: its digest. weights: the selected ones under their common names, as saved by torch.

    predictions: on the parts "val" and "test", with the selected weights.
    """

    status: str
    reason: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    seconds: float | None = None
    val: float | None = None
    test: float | None = None
    test_metrics: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    params: int | None = None
    split_sizes: dict[str, int] = field(default_factory=dict)
    split: str = ""
    weights: bytes | None = None
    outputs: TeacherOutputs | None = None
    predictions: dict[PartName, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", printable(self.reason))


def _check_finite(what: str, tensors: Iterable[Tensor], fitted: Fit) -> None:
    """A NaN has an argmax, too: a score of it would look like any other."""
    if not all(each.isfinite().all() for each in tensors):
        raise DivergedError(f"{what} are not finite", fitted.history)


class Experiment:
    """A cell's data, library and specifications, set up once for all seeds of a job.

    Raises:
        BackendUnavailableError: the library does not import.
    """

    def __init__(self, params: dict[str, Any], data_folder: Path) -> None:
        # one thread: reductions have one order, so a seed has one result; jobs run side by side instead
        torch.set_num_threads(1)
        keep_freed_memory()
        self.backend = get_backend(params["backend"])
        self.device = self.backend.device()
        if self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it only
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.data = read_data(data_folder)
        plugin = load("dataset", Path(params["dataset_file"]))
        self.dataset = plugin(plugin.Params(**params["dataset_params"]))
        self.training = Training(**params["training"])
        self.params = params

    def run(
        self,
        seed: int,
        *,
        teacher_outputs: Sequence[Path] = (),
        teacher_weights: Path | None = None,
        run_seconds: float = float("inf"),
        checkpointing: Checkpointing | None = None,
        progress: Progress = silent,
        evaluate_test: bool = True,
        kept_logits: int = 0,
    ) -> Outcome:
        """Train and evaluate one seed. What goes wrong in it becomes the outcome's status, so that other runs go on.

        Raises what is not of this run alone, and what another try may not meet: a disk or a network that fails, a file
        that cannot be trusted, a GPU that has failed.

        teacher_outputs: files of the pair's teacher, then of further ones. teacher_weights: of the pair's teacher, for
        methods that run it before training. evaluate_test: without, there is no look at the test part at all, and the
        outcome's only score is that of validation: what hyper-parameters may be chosen by. Predictions are kept of
        runs with such a look alone. kept_logits: with their logits, where a part has no more of them than so many.
        """
        with spending("data"):
            teaching = self._teaching(teacher_outputs, teacher_weights)
        try:
            return self._run(seed, teaching, run_seconds, checkpointing, progress, evaluate_test, kept_logits)
        except DivergedError as error:
            return Outcome("diverged", str(error), error.history)
        except OutOfTimeError as error:
            return Outcome("timeout", str(error), error.history)
        except (MemoryError, torch.OutOfMemoryError) as error:
            return Outcome("oom", f"out of memory: {error}")
        except (RecordError, PluginError):
            raise
        except Exception as error:
            message = " ".join(str(error).split())
            if isinstance(error, OSError) and not isinstance(error, _PATHS):
                raise
            if "CUDA error" in message:  # no later run of this process would do better
                raise
            if "without overflow" in message:  # an optimiser's step that no float can hold
                return Outcome("diverged", message)
            if "can't allocate memory" in message:
                return Outcome("oom", f"out of memory: {str(error).splitlines()[0]}")
            log.exception("seed %d ends with an error", seed)
            return Outcome("error", f"{type(error).__name__}: {message}" if message else type(error).__name__)

    def _run(
        self,
        seed: int,
        teaching: Teaching,
        run_seconds: float,
        checkpointing: Checkpointing | None,
        progress: Progress,
        evaluate_test: bool,
        kept_logits: int,
    ) -> Outcome:
        begun = time.monotonic()
        split = self.dataset.split(self.data, seed)
        protocol = Protocol(**self.params["protocol"])
        role = "student" if "method" in self.params else "teacher"
        data, visible = without_test(self.data, split)
        seen = observed(split, data.num_nodes, seed) if protocol.setting == "production" else None
        if seen is not None:
            data, visible = subgraph(data, seen), place(visible, seen)
        method = self._method(seed)
        inputs = self._inputs(data)
        setup = setup_of(inputs, visible, teaching, generator(seed, "student"))
        extra = method.student_inputs(setup)
        if extra is not None:
            inputs = self._inputs(with_features(data, extra))
            setup = setup_of(inputs, visible, teaching, generator(seed, "student"))
        inner = self._model(seed, role, inputs.data.x.shape[1])
        model = method.wrap_student(inner, setup)
        initialise_around(inner, model, seed, role)
        model.to(self.device)
        del setup  # as large as the data
        preparing = time.monotonic() - begun
        evaluation = evaluation_of(protocol, role)
        result: Fit = fit(
            model,
            method,
            inputs,
            visible,
            self.training,
            seed=seed,
            teaching=teaching,
            distill_nodes=protocol.distill_nodes,
            evaluation=evaluation,
            train_projectors=protocol.train_projectors,
            run_seconds=run_seconds - preparing,
            checkpointing=checkpointing,
            progress=progress,
        )
        outputs = None
        if role == "teacher":
            outputs = teacher_outputs(model, inputs, visible.train)
            _check_finite("outputs for students", (outputs.logits, *outputs.hidden), result)
        weights = io.BytesIO()
        torch.save(canonical_state(model), weights)
        outcome = Outcome(
            "ok",
            history=result.history,
            best_epoch=result.best_epoch,
            seconds=result.seconds + preparing,
            val=result.val,
            params=count_parameters(model),
            split_sizes=split.sizes(),
            split=split.digest,
            weights=weights.getvalue(),
            outputs=outputs,
        )
        if not evaluate_test:
            return outcome
        with spending("evaluation"):  # the one look at the test part, on the selected weights
            everything = self.data
            if extra is not None:
                everything = with_features(everything, extra if seen is None else extended(extra, seen, everything))
            whole = self._inputs(everything, augment=False)
            task = self.data.task
            on_val = predict(model, inputs.ordered(visible.val))
            if seen is None:
                rows, predictions = split.test, predict(model, whole.ordered(split.test))
                _check_finite("predictions on the test part", (logits for logits, _ in predictions), result)
                logits, y = map(torch.cat, zip(*predictions, strict=True))
                metrics = task.metrics(logits, y)
            else:  # what was there in training is predicted without what was not
                parts = divided(split.test, seen)
                known = self._inputs(with_labels(inputs.data, self.data, seen), augment=False)
                on_known = predict(model, known.ordered(torch.searchsorted(seen, parts["seen"])))
                on_whole = predict(model, whole.ordered(parts["unseen"]))
                logits, y = (torch.cat(each) for each in zip(*on_known, *on_whole, strict=True))
                _check_finite("predictions on the test part", (logits,), result)
                rows, predictions, metrics = torch.cat(list(parts.values())), [(logits, y)], task.metrics(logits, y)
                for name, found in (("seen", on_known), ("unseen", on_whole)):
                    metrics[f"{task.metric_name}_{name}"] = task.score(found, evaluation)
            return replace(
                outcome,
                test=task.score(predictions, evaluation),
                test_metrics=metrics,
                calibration=calibration(logits.cpu().numpy(), y.cpu().numpy()),
                predictions={
                    "val": self._predicted(split.val, on_val, evaluation, kept_logits),
                    "test": self._predicted(rows, predictions, evaluation, kept_logits),
                },
            )

    def _predicted(
        self, part: Tensor, predictions: list[tuple[Tensor, Tensor]], evaluation: Evaluation, kept_logits: int
    ) -> Part:
        """The (logits, y) pairs of batches as what was predicted on the rows of a part of the split."""
        task, inductive = self.data.task, self.data.setting == "inductive"
        rows = ranges(self.data.graph_ptr, part)[0] if inductive and task.level == "node" else part
        order = rows.argsort()

        def array(values: Tensor) -> Any:
            return values.cpu()[order].numpy()

        logits, y = map(torch.cat, zip(*predictions, strict=True))
        sizes = torch.tensor([len(labels) for _, labels in predictions])
        in_batches = evaluation.score == "batches" and len(predictions) > 1
        return Part(
            rows=array(rows),
            y=array(y > 0.5 if task.multilabel else y),
            predicted=array(task.decide(logits, evaluation)),
            logits=array(logits) if logits.numel() <= kept_logits else None,
            score=array(logits[:, 1].double() - logits[:, 0].double()) if task.metric_name == "roc_auc" else None,
            batch=array(torch.arange(len(sizes)).repeat_interleave(sizes)) if in_batches else None,
        )

    def _inputs(self, data: GraphData, augment: bool = True) -> Inputs:
        augmentation = self.dataset.augment if augment else None
        neighbours = static_neighbours(self.data) if data.x is self.data.x else None
        return Inputs(data, self.backend, self.device, self.training.batch_size, augmentation, neighbours)

    def _teaching(self, outputs: Sequence[Path], weights: Path | None) -> Teaching:
        if not outputs:
            return Teaching()
        first, *further = map(load_outputs, outputs)
        model = None
        if weights:
            model = self._teacher()
            load_canonical(model, load_tensors(weights))
        return Teaching(first, tuple(further), model, self._teacher)

    def _teacher(self) -> GNN:
        """A model like the teacher, on the CPU; its weights are the method's to initialise."""
        return GNN(self._spec("teacher_model"), self.backend, self.data.x.shape[1], self.data.num_classes)

    def _model(self, seed: int, role: str, d_in: int) -> GNN:
        torch.manual_seed(derive(seed, role))  # of what a plug-in draws itself, such as buffers
        model = GNN(self._spec("model"), self.backend, d_in, self.data.num_classes)
        initialise(model, seed, role)
        return model

    def _method(self, seed: int) -> Method:
        student = self._dims("model")
        if "method" not in self.params:
            return TaskLossOnly(Parameters(), student, student)
        about = self.params["method"]
        teacher = self._dims("teacher_model")
        method = load_method(about["files"], about["params"], student, teacher)
        for part in method.parts if isinstance(method, Combined) else (method,):
            initialise(part, seed, "projector")
        return method

    def _spec(self, role: str) -> Spec:
        return read_spec(self.params[role], self.params.get("model_files", {}))

    def _dims(self, role: str) -> Dims:
        return Dims(self._spec(role).hidden_dims, self.data.num_classes)
