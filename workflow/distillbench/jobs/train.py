"""What the rules teacher and distill do: train a shard of teachers or students.

A job trains the seeds of its shard that are not on disk yet, one after another, and writes the records of all of them
into the file that the DAG declares. The per-seed files are not declared outputs, which Snakemake would delete before a
rerun: a finished seed is never trained twice. A stored run is used only where its key (configuration, data, code and,
for a student, its teacher) agrees. torch is imported only when there is something to train.
"""

import csv
import io
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from distillbench.data.cards import read_card
from distillbench.durations import spending
from distillbench.locks import locked
from distillbench.models.backends import BackendUnavailableError
from distillbench.params import TEACHER
from distillbench.paths import Cell, Paths
from distillbench.plan.plan import hyperparameters, without_path
from distillbench.plan.sources import code_of
from distillbench.plan.tuning import tuning_of, with_values
from distillbench.predictions import ENDING, pack
from distillbench.record import (
    Record,
    RecordError,
    digest,
    environment,
    file_digest,
    later,
    read_record,
    read_shard,
    utc_now,
    write_atomically,
    write_record,
    write_shard,
)

if TYPE_CHECKING:
    from distillbench.training.experiment import Outcome

log = logging.getLogger("distillbench")

# a run with another status (oom, timeout, error, skipped) is tried again when its job runs again
FINISHED = ("ok", "diverged")
_ENDINGS = {"weights": "pt", "outputs": "outputs.pt", "predictions": ENDING}
_DECIDES = ("model", "training", "teacher_model", "protocol", "dataset_params")


def train(**arguments: Any) -> str:
    """Train a shard of teachers or students; arguments as of Job. Returns a line that sums the job up."""
    return Job(**arguments).run()


class Job:
    """One shard of seeds of one method, or of the teacher, in one cell.

    params: see Grid.teacher_params and Grid.student_params. sources: the files whose content is part of the key.
    execution: see config.Execution. planned_runs: of the whole config, for the line that sums the job up. Raises
    RecordError where the values chosen for the method cannot be trusted.
    """

    def __init__(
        self,
        results: str,
        shard: int,
        params: dict[str, Any],
        sources: list[str],
        execution: dict[str, Any],
        planned_runs: int,
    ) -> None:
        tuning = tuning_of(params)
        self.tuning = tuning.facts() if tuning else {}
        # first of all: keys, training and records are of the chosen values
        self.params = params = with_values(params, tuning.chosen) if tuning else params
        self.shard, self.execution, self.planned_runs = shard, execution, planned_runs
        self.for_tuning = "runs" in params  # whose runs have a folder of their own, and no test score
        self.paths = Paths(params.get("runs", results))
        self.environment: dict[str, Any] = {}
        self.cell = Cell(params["dataset"], params["backend"], params["pair"])
        self.method: str = params["method"]["name"] if "method" in params else TEACHER
        self.name = "/".join((*self.cell, self.method))
        self.folder = self.paths.runs(self.cell, self.method)
        self.data = Paths(results).data(self.cell.dataset)
        self.card = read_card(self.data / "data.json")
        # by content alone: moving the folder must not make anything train again
        self.digests = {
            "data": self.card.digest,
            "code": code_of((file, file_digest(Path(file))) for file in sources),
        }

    def run(self) -> str:
        """Train what is missing, write the shard's records. Returns a line that sums the job up.

        One process at a time: a job that outlived its Snakemake is waited for, and what it trains is used.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        busy = f"{self.name}: another process trains these seeds; waiting for it"
        with locked(self.folder / f".records-{self.shard}.lock", busy=busy):
            return self._run()

    def _run(self) -> str:
        begun = time.monotonic()
        seeds: list[int] = self.params["seeds"]
        for pattern in (*(f".seed-{seed}.*" for seed in seeds), f".records-{self.shard}.json.*"):
            for draft in self.folder.glob(pattern):
                draft.unlink()  # of a job that was killed in the middle of a file: nobody else writes here now
        teachers = self._teachers()
        keys = {seed: self._key(seed, teachers.get(seed, [])) for seed in seeds}
        stored = {seed: record for seed in seeds if (record := self._stored(seed, keys[seed]))}
        for seed in stored:  # of a job that was killed between the record and this
            self.file(seed, "checkpoint.pt").unlink(missing_ok=True)
        records = {seed: self._with_tuning(record) for seed, record in stored.items()}
        todo = [seed for seed in seeds if seed not in records]
        if records:
            log.info("%s: %d of %d seeds are on disk already", self.name, len(records), len(seeds))
        run_one = self._runner(evaluate_test=not self.for_tuning) if todo else None
        for number, seed in enumerate(todo, start=1):
            title = f"{self.name} seed {seed} (run {number} of {len(todo)})"
            log.info("%s begins", title)
            assert run_one is not None
            started, clock = utc_now(), time.monotonic()
            with spending("training"):
                outcome = run_one(seed, keys[seed], teachers.get(seed, []), title)
            with spending("writing"):
                # by the clock that never jumps, as all durations are
                ended = later(started, time.monotonic() - clock)
                records[seed] = self._store(seed, keys[seed], (started, ended), outcome)
            log.info("%s: %s", title, _describe(records[seed]))
        ordered = [records[seed] for seed in seeds]
        write_shard(self.paths.shard(self.cell, self.method, self.shard), ordered)
        summary = f"{self.name}: {_summary(ordered)}; {len(todo)} trained in {time.monotonic() - begun:.0f} s"
        if self.for_tuning:
            return f"{summary}, for tuning"
        done = len(self.paths.records())
        return f"{summary}; {min(done, self.planned_runs)} of {self.planned_runs} runs done"

    def keys(self) -> list[str]:
        """Of each seed's run: what determines its result."""
        teachers = self._teachers()
        return [self._key(seed, teachers.get(seed, [])) for seed in self.params["seeds"]]

    def validate(self, title: str) -> "Iterator[Outcome]":
        """Train each seed and evaluate it on validation alone. Nothing is stored but, while it lasts, a checkpoint."""
        teachers, run_one = self._teachers(), self._runner(evaluate_test=False)
        for seed, key in zip(self.params["seeds"], self.keys(), strict=True):
            with spending("training"):
                outcome = run_one(seed, key, teachers.get(seed, []), f"{title}, seed {seed}")
            self.file(seed, "checkpoint.pt").unlink(missing_ok=True)  # before yield: who asks may stop at a failure
            yield outcome

    def file(self, seed: int, ending: str) -> Path:
        """One of a seed's files."""
        return self.folder / f"seed-{seed}.{ending}"

    def _teachers(self) -> dict[int, list[Record]]:
        """The teachers' records by seed, the pair's own first, where the method needs any."""
        cells = [self.cell._replace(pair=pair) for pair in self.params.get("method", {}).get("teachers", [])]
        files = [self.paths.shard(cell, TEACHER, self.shard) for cell in cells]
        shards = [{record.seed: record for record in read_shard(file)} for file in files]
        for file, records in zip(files, shards, strict=True):
            if missing := set(self.params["seeds"]) - records.keys():
                raise RecordError(f"{file}: has no teacher of seed {min(missing)}. Delete it and run snakemake again.")
        return {seed: [records[seed] for records in shards] for seed in self.params["seeds"]} if shards else {}

    def _key(self, seed: int, teachers: list[Record]) -> str:
        decides = {name: self.params[name] for name in _DECIDES if name in self.params}
        decides["dataset_params"] = without_path(decides["dataset_params"])
        if not teachers:
            decides.pop("teacher_model", None)
        method = self.params.get("method", {}).get("params")
        # which part of a combination is which file
        files = {part: file_digest(Path(file)) for part, file in self.params.get("method", {}).get("files", {}).items()}
        # of what teachers predicted on these parts, and how much of it is kept, no student learns
        frozen = [[t.key, t.status, {k: v for k, v in t.digests.items() if k != "predictions"}] for t in teachers]
        return digest(decides, method, list(files.values()), self.digests, seed, frozen)

    def _stored(self, seed: int, key: str) -> Record | None:
        """The finished run of this seed, if its key agrees. A corrupt record is named and set aside, never used."""
        path = self.file(seed, "json")
        if not path.exists():
            return None
        try:
            record = read_record(path)
        except RecordError as error:
            aside = path.with_name(path.name + ".corrupt")
            path.replace(aside)
            log.warning("%s\nIt was moved to %s, and the seed is trained again.", error, aside)
            return None
        if record.key != key or record.status not in FINISHED:
            return None
        missing = [self._artifact(seed, name) for name in _ENDINGS if name in record.digests]
        missing = [file for file in missing if not file.exists()]
        if missing:
            log.warning("%s is missing: the seed is trained again", ", ".join(map(str, missing)))
            return None
        written, file = record.digests.get("predictions"), self._artifact(seed, "predictions")
        if written and file_digest(file) != written:  # nobody else looks at it before the tables are made
            log.warning("%s does not match its record: the seed is trained again", file)
            return None
        return record

    def _with_tuning(self, record: Record) -> Record:
        """The record, saying how its hyper-parameters were chosen now: the same values may have been given before."""
        if record.tuning == self.tuning:
            return record
        record = record.model_copy(update={"tuning": self.tuning})
        write_record(self.file(record.seed, "json"), record)
        return record

    def _artifact(self, seed: int, name: str) -> Path:
        return self.file(seed, _ENDINGS[name])

    def _runner(self, evaluate_test: bool) -> "Callable[[int, str, list[Record], str], Outcome]":
        """What runs one seed. A library that does not import gives skipped runs, with the reason."""
        with spending("imports"):
            from distillbench.training.experiment import Experiment, Outcome
            from distillbench.training.fit import Checkpointing

        try:
            with spending("data"):
                experiment = Experiment(self.params, self.data)
        except BackendUnavailableError as error:
            reason = str(error)
            self.environment = environment(None, "none", 0)
            return lambda *_: Outcome("skipped", reason)
        device = str(experiment.device)
        self.environment = environment(self.cell.backend, device, 1)

        needs_model = "model" in self.params.get("method", {}).get("requires", [])

        def run_one(seed: int, key: str, teachers: list[Record], title: str) -> Outcome:
            for teacher in teachers:
                if teacher.status != "ok":
                    return Outcome("skipped", f"its teacher has the status {teacher.status}: {teacher.reason}")
            with spending("data"):
                outputs = [self._of_teacher(teacher, "outputs") for teacher in teachers]
                weights = self._of_teacher(teachers[0], "weights") if needs_model else None
            return experiment.run(
                seed,
                teacher_outputs=outputs,
                teacher_weights=weights,
                run_seconds=self.params["run_seconds"],
                checkpointing=Checkpointing(
                    self.file(seed, "checkpoint.pt"), key, self.execution["checkpoint_seconds"]
                ),
                progress=_Progress(title, self.params["training"]["epochs"]),
                evaluate_test=evaluate_test,
                kept_logits=self.execution["logits"],
            )

        return run_one

    def _of_teacher(self, teacher: Record, name: str) -> Path:
        """The file of a teacher's outputs or weights, if it is the one that its record speaks of."""
        cell = self.cell._replace(pair=teacher.pair)
        path = self.paths.runs(cell, TEACHER) / f"seed-{teacher.seed}.{_ENDINGS[name]}"
        if not path.exists() or file_digest(path) != teacher.digests[name]:
            shard = self.paths.shard(cell, TEACHER, self.shard)
            state = "does not match its record" if path.exists() else "is missing"
            raise RecordError(f"{path}: {state}. Delete it and {shard}, and run snakemake again.")
        return path

    def _store(self, seed: int, key: str, times: tuple[str, str], outcome: "Outcome") -> Record:
        """Write a run's files, the record last: while it is not there, the run does not count as finished."""
        from distillbench.training.inputs import save_outputs

        self.file(seed, "json").unlink(missing_ok=True)
        digests = dict(self.digests)
        if outcome.split:
            digests["split"] = outcome.split
        if outcome.weights is not None:
            write_atomically(self._artifact(seed, "weights"), outcome.weights)
            digests["weights"] = file_digest(self._artifact(seed, "weights"))
        if outcome.outputs is not None:
            save_outputs(self._artifact(seed, "outputs"), outcome.outputs)
            digests["outputs"] = file_digest(self._artifact(seed, "outputs"))
        if outcome.predictions:
            write_atomically(self._artifact(seed, "predictions"), pack(outcome.predictions))
            digests["predictions"] = file_digest(self._artifact(seed, "predictions"))
        write_atomically(self.file(seed, "history.csv"), _csv(outcome.history))
        record = Record(
            key=key,
            **self.cell._asdict(),
            method=self.method,
            role="teacher" if self.method == TEACHER else "student",
            seed=seed,
            status=outcome.status,  # type: ignore[arg-type]
            reason=outcome.reason,
            task=self.card.task,
            metric=self.card.metric,
            resplit=self.card.resplit,
            split_sizes=outcome.split_sizes,
            val=outcome.val,
            test=outcome.test,
            test_metrics=outcome.test_metrics,
            calibration=outcome.calibration,
            epochs=len(outcome.history) or None,
            best_epoch=outcome.best_epoch,
            params=outcome.params,
            train_seconds=outcome.seconds,
            hyperparameters=hyperparameters(self.params),
            tuning=self.tuning,
            environment=self.environment,
            digests=digests,
            started=times[0],
            ended=times[1],
        )
        write_record(self.file(seed, "json"), record)
        if record.status in FINISHED:  # with more time, a run that was too long can go on where it was
            self.file(seed, "checkpoint.pt").unlink(missing_ok=True)
        return record


class _Progress:
    """Logs an epoch now and then: the first, the last, and one every few seconds."""

    def __init__(self, title: str, epochs: int, every: float = 5.0) -> None:
        self.title, self.epochs, self.every = title, epochs, every
        self.begun = self.logged = time.monotonic()

    def __call__(self, row: dict[str, float], best_epoch: int) -> None:
        now, epoch = time.monotonic(), int(row["epoch"])
        if epoch not in (1, self.epochs) and now - self.logged < self.every:
            return
        self.logged = now
        val = f"{row['val']:.4f}" if "val" in row else "not evaluated"
        left = (now - self.begun) / epoch * (self.epochs - epoch)
        log.info(
            "%s: epoch %d of %d, loss %.4f, val %s (selected: epoch %d), at most %.0f s left",
            self.title, epoch, self.epochs, row["loss"], val, best_epoch, left,
        )  # fmt: skip


def _csv(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, fieldnames=list(history[0]) if history else ["epoch", "seconds", "loss", "val"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _describe(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    test = "" if record.test is None else f", test {record.test:.4f}"
    return f"ok, val {record.val:.4f}{test}, epoch {record.best_epoch}, {record.train_seconds:.1f} s"


def _summary(records: list[Record]) -> str:
    good = [record for record in records if record.status == "ok"]
    failed = sorted({record.status for record in records} - {"ok"})
    text = f"{len(good)} of {len(records)} ok" + (f" ({', '.join(failed)})" if failed else "")
    for part in ("val", "test"):
        scores = [score for record in good if (score := getattr(record, part)) is not None]
        text += f", mean {part} {fmean(scores):.3f}" if scores else ""
    for record in records:
        if record.status == "error":  # the first of them; all are in the table, and their tracebacks in the job's log
            return f"{text}; seed {record.seed}: {record.reason}"
    return text
