"""Records: one JSON file per run, the truth that every table, figure and MLflow page is a view of.

A record is written once, atomically (write, fsync, rename), and carries a checksum of itself, so that a truncated or
altered file is named instead of being read as a result. Importing this module imports no torch.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Status = Literal["ok", "diverged", "oom", "timeout", "error", "skipped"]
Role = Literal["teacher", "student"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]  # what a column of a table can hold
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SCHEMA = 1


def _moment(text: str) -> str:
    if text and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Moment = Annotated[str, AfterValidator(_moment)]  # ISO 8601, or empty where nothing ran


class RecordError(ValueError):
    """A record file that cannot be trusted; the message names the file and what to do."""


class Record(BaseModel):
    """Everything there is to know about one run (one model, one seed).

    ``val`` and ``test`` are fractions in [0, 1]; durations are seconds; ``started`` and ``ended`` are UTC, ISO 8601.
    ``key`` identifies what determines the result (configuration, data and code digests, seed, and a student's teacher):
    a stored run is reused only where the key agrees.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    key: str
    dataset: str
    backend: str
    pair: str
    method: str  # the variant's name; "teacher" for a teacher
    role: Role
    seed: Count
    status: Status
    reason: str = ""  # why the status is not "ok"
    task: str
    metric: str  # name of the metric: accuracy, micro_f1
    resplit: bool = False  # the split is redrawn for every seed (Nadeau-Bengio applies)
    split_sizes: dict[str, Count] = Field(default_factory=dict)  # train, val, test: labelled nodes or graphs
    val: Fraction | None = None
    test: Fraction | None = None
    test_metrics: dict[str, Fraction] = Field(default_factory=dict)  # all metrics of the task on the test part, by name
    calibration: dict[str, NotNegative] = Field(default_factory=dict)  # ece and nll on the test part (calibration.py)
    epochs: Count | None = None
    best_epoch: Count | None = None
    params: Count | None = None  # number of trainable parameters of the model, without projectors
    train_seconds: Seconds | None = None
    hyperparameters: dict[str, Any] = Field(default_factory=dict)  # nested: model, training, method, dataset
    tuning: dict[str, Any] = Field(default_factory=dict)  # how some of these were chosen (Tuning.facts), if they were
    environment: dict[str, Any] = Field(default_factory=dict)  # versions, machine, device, threads
    digests: dict[str, str] = Field(default_factory=dict)  # data, code, weights, outputs, predictions
    started: Moment = ""
    ended: Moment = ""

    @property
    def run_id(self) -> str:
        """Readable identity, unique within a results folder: ``digits/pyg/gat/lsp/3``."""
        return f"{self.dataset}/{self.backend}/{self.pair}/{self.method}/{self.seed}"


def printable(text: str) -> str:
    """The text with control characters, as the colours of a terminal are made of, written as their code points."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"[U+{ord(char):04X}]" for char in text)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no insignificant space: equal values have equal text. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


def digest(*parts: object) -> str:
    """SHA-256 (hex) of the canonical JSON of ``parts``."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write ``content`` so that ``path`` holds either its old content or all of the new, also after a power cut.

    A function is given the file to write into: what is large need not be in memory twice. Raises OSError with the
    file's name and the room that its disk has left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        if hasattr(os, "O_DIRECTORY"):  # the name, too, is to outlive a power cut
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OSError(error.errno, f"{path}: {error.strerror or error}, {free:,.1f} MB free on its disk") from error
    finally:
        draft.unlink(missing_ok=True)


def write_record(path: Path, record: Record) -> None:
    """Write one record with its checksum, atomically."""
    write_atomically(path, json.dumps(sealed(record.model_dump(mode="json")), indent=1, sort_keys=True) + "\n")


def read_record(path: Path) -> Record:
    """Read one record. Raises RecordError naming the file where it is not a complete, unaltered record."""
    return _unsealed(path, _parse(path))


def write_shard(path: Path, records: list[Record]) -> None:
    """Write the records of one job (a shard of seeds) into the one file that the DAG declares, atomically."""
    content = [sealed(record.model_dump(mode="json")) for record in records]
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_shard(path: Path) -> list[Record]:
    """Read what write_shard wrote. Raises RecordError naming the file."""
    content = _parse(path)
    if not isinstance(content, list):
        raise _corrupt(path, "not a list of records")
    return [_unsealed(path, item) for item in content]


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` (JSON-able) with its checksum."""
    return {**content, "checksum": digest(content)}


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (JSON-able) with its checksum, atomically."""
    write_atomically(path, json.dumps(sealed(content), indent=1) + "\n")


def read_sealed(path: Path, what: str = "file") -> dict[str, Any]:
    """Read what ``write_sealed`` wrote. Raises RecordError naming the file, and ``what`` it is, where it is damaged."""
    return _opened(path, _parse(path, what), what)


def environment(backend: str | None, device: str, threads: int) -> dict[str, Any]:
    """Versions and machine of this process, as stored in a record."""
    packages = {"pyg": "torch-geometric", "dgl": "dgl"}
    names = ["torch", *([packages[backend]] if backend in packages else [])]
    gpu = {}
    if device.startswith("cuda"):
        import torch

        gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": device,
        "threads": threads,
        **gpu,
        **{name: metadata.version(name).split("+")[0] for name in names},
    }


def utc_now() -> str:
    """The time now, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def later(moment: str, seconds: float) -> str:
    """So many seconds after a moment of ``utc_now``, in the same form."""
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _parse(path: Path, what: str = "record") -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers of thousands of digits, levels likewise
        raise _corrupt(path, f"not valid JSON ({error})", what) from error
    except IsADirectoryError:
        raise _corrupt(path, "a folder, not a file", what) from None


def _opened(path: Path, content: Any, what: str = "record") -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _corrupt(path, f"not a {what}", what)
    fields = dict(content)
    checksum = fields.pop("checksum", None)
    try:
        json.dumps(fields, ensure_ascii=False).encode()  # tables are UTF-8, which has no half of a surrogate pair
        found = digest(fields)
    except ValueError as error:  # a NaN, too: Python reads it, JSON has none
        raise _corrupt(path, f"not valid JSON ({error})", what) from error
    if checksum is None:
        raise _corrupt(
            path, "it has no checksum: an earlier version of distillbench wrote it, or something else did", what
        )
    if checksum != found:
        raise _corrupt(path, "its checksum does not match its content", what)
    return fields


def _unsealed(path: Path, content: Any) -> Record:
    try:
        return Record(**_opened(path, content))
    except ValidationError as error:
        raise _corrupt(path, f"not a record of this version ({error.errors()[0]['msg']})") from error


def _corrupt(path: Path, reason: str, what: str = "record") -> RecordError:
    return RecordError(
        f"{path}: corrupt {what}: {reason}. Delete the file and run snakemake again: "
        "finished seeds that are intact are not trained again."
    )
