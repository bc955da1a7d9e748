"""The MLflow view of a results folder: one idempotent writer (``sync``) and the page (``ui``).

    python -m distillbench.tracking sync [--results results] [--uri URI]
    python -m distillbench.tracking ui   [--results results] [--port 5000]

Records on disk are the truth; MLflow shows them. One experiment per data set, one flat run per record, and one run
named "summary" per data set that holds the tables and the figure. Deleting ``results/mlflow`` loses nothing: the next
sync writes it again. MLflow is imported inside the functions, because that takes about three seconds.
"""

import argparse
import csv
import errno
import io
import json
import logging
import os
import re
import socket
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from filelock import FileLock, Timeout

from distillbench.record import Record, RecordError, digest, file_digest, read_record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

log = logging.getLogger(__name__)

LAYOUT = 1  # raise it when a run is shown differently: every run is then replaced once
RUN_TAG, DIGEST_TAG = "distillbench.run", "distillbench.digest"
METRICS_A_CALL, PARAMS_A_CALL, ENTITIES_A_CALL = 1000, 100, 1000  # MLflow's limits for one log_batch
PARAM_LENGTH, TAG_LENGTH, DATASET_DIGEST_LENGTH = 6000, 5000, 8  # characters

# By itself the page's table shows no metric. A shared view does: an experiment's tag, opened by its key in the address.
VIEW = "results"
COLUMNS = [*(f"metrics.`{name}`" for name in ("val", "test", "best_epoch", "train_seconds")), "tags.`status`"]

Progress = Callable[[int, int, str], None]


class TrackingError(ValueError):
    """A store that cannot be written or shown; the message says what to do."""


class SyncReport(NamedTuple):
    """What a sync did: numbers of MLflow runs written for the first time, replaced, and already up to date.

    ``problems`` names every file that could not be shown in full, one message each.
    """

    added: int
    replaced: int
    skipped: int
    problems: tuple[str, ...]


def sync(
    results: Path,
    tracking_uri: str | None = None,
    *,
    artifact_location: str | None = None,
    progress: Progress | None = None,
) -> SyncReport:
    """Bring MLflow up to date with the records below ``results``; a second call has nothing to do.

    Without ``tracking_uri`` the store is ``results/mlflow/mlflow.db``. Artifacts go below ``artifact_location`` (a
    URI), by default ``results/mlflow/artifacts``, or where the server says if ``tracking_uri`` is a server's.
    ``progress`` is called with (runs written, runs to write, the run's identity) after each run written.

    - A run is up to date where its tag ``distillbench.digest`` is that of the record, its history and its data set. The
      tag is written last, so that a run which a killed sync left half-written is recognised and replaced.
    - A changed run is written anew before the old one is deleted. Deleted runs keep their place in the store until
      ``mlflow gc``. A run deleted in the page comes back, for as long as its record exists.
    - A run whose record no longer exists stays: MLflow is then the only place that remembers it.
    - Status: ``ok`` and ``skipped`` are FINISHED (nothing went wrong where a library is absent), all others FAILED;
      the tags ``status`` and ``reason`` tell them apart. Times are those of the run, not of the sync.
    - One sync at a time writes for a results folder; another one waits.

    Raises FileNotFoundError where ``results`` does not exist, PermissionError where it cannot be written into, and
    TrackingError where the store cannot be used.
    """
    results = Path(results).resolve(strict=True)
    folder = results / "mlflow"
    folder.mkdir(exist_ok=True)
    with _alone(folder / ".sync.lock"):
        uri = tracking_uri or _store_uri(folder / "mlflow.db")
        if artifact_location is None and not uri.startswith(("http:", "https:")):
            artifact_location = _artifact_uri(folder)
        _import_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if tracking_uri is not None:
                return _sync(results, _client(uri), artifact_location, progress)
            _set_aside_if_moved(folder / "mlflow.db", _artifact_uri(folder))
            with _unhurried_disk(folder / "mlflow.db"):
                _create_store(folder / "mlflow.db")
                return _sync(results, _client(uri), artifact_location, progress)
        except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: the driver of a database
            advice = "" if tracking_uri else f" (delete {folder} and sync again: the records write it anew)"
            raise TrackingError(f"MLflow store {_without_password(uri)}: {error}{advice}") from error


def ui(results: Path, port: int = 5000) -> NoReturn:
    """Serve the MLflow page of ``results`` on 127.0.0.1, until interrupted.

    Prints first its address and, for each data set, that of the table with its metrics; then this process becomes
    the server. Raises TrackingError where there is no store yet, or it is not a database, or the port is taken.
    """
    folder = results / "mlflow"
    store = folder / "mlflow.db"
    if not store.exists():
        raise TrackingError(
            f"{store} does not exist: run snakemake first (or python -m distillbench.tracking sync --results {results})"
        )
    _check_port(port)
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow UI: {address}   (starts in a few seconds; Ctrl-C stops it)")
    for experiment, name in _experiments(store):
        print(f"  {name}: {address}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", _store_uri(store.resolve())]
    command += ["--default-artifact-root", _artifact_uri(folder.resolve()), "--no-serve-artifacts"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Job execution starts more processes, for evaluating language models.
    os.execve(command[0], command, {**os.environ, **_QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


# ---- what is on disk


@dataclass(frozen=True)
class _Source:
    """One run as it is on disk. ``files`` become its artifacts; ``record`` is None for a data set's summary."""

    run: str
    dataset: str
    digest: str
    files: tuple[Path, ...]
    record: Record | None = None
    curves: Path | None = None


def _sources(results: Path, problems: list[str]) -> list[_Source]:
    found: dict[str, _Source] = {}
    for path in sorted([*results.glob("teachers/*/*/*/seed-*.json"), *results.glob("runs/*/*/*/*/seed-*.json")]):
        try:
            record = read_record(path)
            if record.run_id in found:
                raise RecordError(f"{path}: is the same run ({record.run_id}) as {found[record.run_id].files[0]}")
            found[record.run_id] = _record_source(results, path, record)
        except FileNotFoundError:
            continue  # a job that starts again has just removed it
        except (RecordError, OSError) as error:
            problems.append(str(error))
    names = sorted({source.dataset for source in found.values()})
    return [*found.values(), *(s for s in (_summary_source(results, name) for name in names) if s)]


def _record_source(results: Path, path: Path, record: Record) -> _Source:
    history = path.with_name(f"{path.stem}.history.csv")
    shown = [LAYOUT, record.model_dump(mode="json")]
    shown += [file_digest(file) if file.exists() else None for file in (history, _card(results, record.dataset))]
    curves = history if history.exists() else None
    return _Source(record.run_id, record.dataset, digest(*shown), (path, *([curves] if curves else [])), record, curves)


def _summary_source(results: Path, dataset: str) -> _Source | None:
    tables = [p for p in sorted(results.glob("tables/*")) if p.suffix in {".csv", ".html", ".md", ".tex"}]
    figures = [p for p in (results / "figures" / f"{dataset}{suffix}" for suffix in (".png", ".svg")) if p.exists()]
    files = (*tables, *figures)
    if not files:
        return None
    return _Source(f"{dataset}/summary", dataset, digest(LAYOUT, {p.name: file_digest(p) for p in files}), files)


def _card(results: Path, dataset: str) -> Path:
    return results / "data" / dataset / "data.json"


def _curves(path: Path) -> Iterator[tuple[str, float, float, int]]:
    """(column, value, seconds since the start, epoch) for each number of a history. Raises ValueError."""
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
    if missing := {"epoch", "seconds"} - set(rows.fieldnames or ()):
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"line {rows.line_num} has not as many values as there are columns")
        epoch, seconds = int(row.pop("epoch")), float(row.pop("seconds"))
        yield from ((column, float(value), seconds, epoch) for column, value in row.items() if value)


# ---- what MLflow has


def _sync(
    results: Path, client: "MlflowClient", artifact_location: str | None, progress: Progress | None
) -> SyncReport:
    problems: list[str] = []
    sources = _sources(results, problems)
    added = replaced = skipped = 0
    stale: list[tuple[_Source, str, list[str]]] = []  # what to write, into which experiment, instead of which runs
    for dataset in dict.fromkeys(source.dataset for source in sources):
        try:
            experiment = _experiment(client, dataset, artifact_location)
        except TrackingError as error:
            problems.append(str(error))
            continue
        present = _present(client, experiment)
        for source in (source for source in sources if source.dataset == dataset):
            runs = present.get(source.run, [])
            current = [run.info.run_id for run in runs if run.data.tags.get(DIGEST_TAG) == source.digest]
            others = [run.info.run_id for run in runs if run.info.run_id not in current[:1]]
            if not current:
                stale.append((source, experiment, others))
                continue
            skipped += 1
            for run_id in others:  # a sync was killed between writing the new run and deleting the old one
                client.delete_run(run_id)
    inputs = _dataset_inputs(results, {source.dataset for source, _, _ in stale}, problems)
    for done, (source, experiment, others) in enumerate(stale, start=1):
        try:
            _write(client, experiment, source, inputs.get(source.dataset), problems)
        except TrackingError as error:
            problems.append(str(error))
        else:
            for run_id in others:
                client.delete_run(run_id)
            added, replaced = added + (not others), replaced + bool(others)
        if progress:
            progress(done, len(stale), source.run)
    return SyncReport(added, replaced, skipped, tuple(problems))


def _experiment(client: "MlflowClient", name: str, artifact_location: str | None) -> str:
    location = f"{artifact_location.rstrip('/')}/{name}" if artifact_location else None
    found = client.get_experiment_by_name(name)
    if found is None:
        kind = {
            "mlflow.experimentKind": "custom_model_development"
        }  # else the page takes it for one of language models
        view = {f"mlflow.sharedViewState.{VIEW}": json.dumps({"selectedColumns": COLUMNS})}
        return str(client.create_experiment(name, location, kind | view))
    if location and found.artifact_location != location:
        raise TrackingError(
            f"MLflow experiment '{name}' keeps its artifacts in {found.artifact_location}, not in {location}: it is "
            "another results folder's, or this one was moved or copied. Rename or delete the experiment and sync again."
        )
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _present(client: "MlflowClient", experiment: str) -> dict[str, list["Run"]]:
    """The runs of an experiment that a sync wrote, by the identity of their record."""
    present: dict[str, list[Run]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            if identity := run.data.tags.get(RUN_TAG):
                present.setdefault(identity, []).append(run)
        if not (token := page.token):
            return present


def _write(
    client: "MlflowClient", experiment: str, source: _Source, data: "DatasetInput | None", problems: list[str]
) -> None:
    """Write one run. Raises TrackingError naming the record where MLflow cannot show it; the run is then removed."""
    from mlflow.exceptions import MlflowException

    start, end = _times(source)
    name, tags = _name(source), {key: value[:TAG_LENGTH] for key, value in _tags(source).items()}
    run_id = client.create_run(experiment, start_time=start, run_name=name, tags=tags).info.run_id
    try:
        if source.record:
            params = {_key(k): v[:PARAM_LENGTH] for k, v in _flat(source.record.hyperparameters).items()}
            _log(client, run_id, [*_finals(source.record, end), *_history(source, start, problems)], params)
        if data:
            client.log_inputs(run_id, datasets=[data])
        for file in source.files:
            client.log_artifact(run_id, str(file), None if source.record else file.parent.name)
        failed = source.record and source.record.status not in ("ok", "skipped")
        client.set_terminated(run_id, "FAILED" if failed else "FINISHED", end_time=end)
        client.set_tag(run_id, DIGEST_TAG, source.digest)
    except (FileNotFoundError, MlflowException) as error:
        if isinstance(error, MlflowException) and error.error_code != "INVALID_PARAMETER_VALUE":
            raise  # the store is at fault, not this record
        client.delete_run(run_id)
        raise TrackingError(f"{source.files[0]}: not shown in MLflow: {error}") from error


def _log(client: "MlflowClient", run_id: str, metrics: list["Metric"], params: dict[str, str]) -> None:
    """All metrics and params in as few calls as the limits allow: each call is one or more transactions."""
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    first = min(METRICS_A_CALL, ENTITIES_A_CALL - min(len(items), PARAMS_A_CALL))
    client.log_batch(run_id, metrics=metrics[:first], params=items[:PARAMS_A_CALL], synchronous=True)
    for i in range(first, len(metrics), METRICS_A_CALL):
        client.log_batch(run_id, metrics=metrics[i : i + METRICS_A_CALL], synchronous=True)
    for i in range(PARAMS_A_CALL, len(items), PARAMS_A_CALL):
        client.log_batch(run_id, params=items[i : i + PARAMS_A_CALL], synchronous=True)


# ---- how a run is shown


def _name(source: _Source) -> str:
    record = source.record
    return f"{record.method} · {record.backend} · {record.pair} · seed {record.seed}" if record else "summary"


def _tags(source: _Source) -> dict[str, str]:
    record = source.record
    if record is None:
        return {RUN_TAG: source.run, "dataset": source.dataset, "role": "summary"}
    shown = ("dataset", "backend", "pair", "method", "role", "seed", "status", "reason", "task", "metric", "key")
    nested = {"environment": record.environment, "digest": record.digests, "split": record.split_sizes}
    tags = {key: str(getattr(record, key)) for key in shown} | _flat({k: v for k, v in nested.items() if v})
    return {RUN_TAG: source.run} | {key: value for key, value in tags.items() if value}


def _finals(record: Record, end: int) -> Iterator["Metric"]:
    from mlflow.entities import Metric

    for key in ("val", "test", "epochs", "best_epoch", "params", "train_seconds"):
        if (value := getattr(record, key)) is not None:
            yield Metric(key, float(value), end, 0)


def _history(source: _Source, start: int, problems: list[str]) -> list["Metric"]:
    from mlflow.entities import Metric

    if source.curves is None:
        if source.record and source.record.status == "ok":
            problems.append(f"{source.files[0]}: its history is missing: MLflow shows the run without curves")
        return []
    try:
        # a name of their own: the last val of the curve is not the val of the selected epoch
        return [
            Metric(f"curves/{_key(column)}", value, start + round(seconds * 1000), epoch)
            for column, value, seconds, epoch in _curves(source.curves)
        ]
    except (ValueError, csv.Error) as error:
        problems.append(f"{source.curves}: damaged history ({error}): MLflow shows the run without curves")
        return []


def _dataset_inputs(results: Path, datasets: set[str], problems: list[str]) -> dict[str, "DatasetInput"]:
    from mlflow.entities import Dataset, DatasetInput

    inputs = {}
    for path in (_card(results, name) for name in sorted(datasets)):
        if not path.exists():
            continue
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            name, source, short = card["name"], card["source"], card["digest"][:DATASET_DIGEST_LENGTH]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path}: not the card of a data set ({error!r}): MLflow shows its runs without it")
            continue
        profile = json.dumps({key: value for key, value in card.items() if isinstance(value, int)})
        origin = json.dumps({"tags": {"mlflow.source.name": source}})
        inputs[path.parent.name] = DatasetInput(Dataset(name, short, "code", origin, profile=profile))
    return inputs


def _times(source: _Source) -> tuple[int, int]:
    """Start and end in milliseconds since 1970; of files where a record has none (nothing ran)."""
    written = [round(file.stat().st_mtime * 1000) for file in source.files]
    record = source.record
    start = _milliseconds(record.started) if record and record.started else min(written)
    return start, _milliseconds(record.ended) if record and record.ended else max(start, max(written))


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots; lists as JSON: ``{"training": {"lr": 0.01}}`` is ``training.lr = 0.01``."""
    flat: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _key(name: str) -> str:
    """A name with the characters that MLflow refuses replaced by ``_``."""
    return re.sub(r"[^\w.\- :]", "_", name)


# ---- the store


_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def _import_mlflow() -> None:
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    import mlflow  # noqa: F401


def _client(uri: str) -> "MlflowClient":
    if uri.startswith("file:") or "://" not in uri:
        raise TrackingError(
            f"'{uri}': MLflow no longer writes into folders: use sqlite:///…, postgresql://… or https://…"
        )
    from mlflow import MlflowClient

    return MlflowClient(uri)


def _create_store(store: Path) -> None:
    """Create the database as a draft that is renamed: a kill amid its migrations would leave it unusable."""
    if store.exists():
        _experiments(store)  # names a damaged file at once; MLflow would try to open it for 100 seconds
        return
    for draft in store.parent.glob(f".{store.name}.*"):
        draft.unlink()
    draft = store.with_name(f".{store.name}.{uuid.uuid4().hex}")
    _client(_store_uri(draft)).search_experiments(max_results=1)
    draft.replace(store)


def _experiments(store: Path) -> list[tuple[int, str]]:
    """Ids and names of the data sets' experiments, read from the database itself: importing MLflow takes longer."""
    query = (
        "SELECT experiment_id, name FROM experiments JOIN experiment_tags USING (experiment_id) "
        "WHERE lifecycle_stage = 'active' AND key = ? ORDER BY name"
    )
    try:
        with closing(sqlite3.connect(store)) as database:
            return database.execute(query, [f"mlflow.sharedViewState.{VIEW}"]).fetchall()
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{store}: not an MLflow store ({error}): delete it and sync again") from error


def _set_aside_if_moved(store: Path, artifacts: str) -> None:
    """A store knows its artifacts by absolute address: in a folder that was moved or copied it is written anew."""
    if not store.exists():
        return
    query = "SELECT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id) WHERE key = ?"
    try:
        with closing(sqlite3.connect(store)) as database:
            locations = database.execute(query, [f"mlflow.sharedViewState.{VIEW}"]).fetchall()
    except sqlite3.DatabaseError:
        return  # not a store: named where it is opened
    if any(not location.startswith(f"{artifacts}/") for (location,) in locations):
        aside = store.with_name(f"{store.name}.moved")
        log.warning("the results folder was moved or copied: %s is written anew, the old one is %s", store, aside)
        store.replace(aside)


@contextmanager
def _unhurried_disk(store: Path) -> Iterator[None]:
    """Let SQLite leave it to the system when to write to the disk, and wait for the disk once, at the end.

    Each run takes five transactions; waiting for the disk after each takes longer than all the rest. A killed process
    harms nothing; a power cut during a sync may, and then the store is written anew from the records.
    """
    from sqlalchemy import Engine, event

    def unhurried(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", unhurried)
    try:
        yield
    finally:
        event.remove(Engine, "connect", unhurried)
        if store.exists():
            with store.open("rb") as file:
                os.fsync(file.fileno())


def _store_uri(store: Path) -> str:
    if "?" in str(store):
        raise TrackingError(f"{store}: a database cannot have a path with '?': move the results folder")
    return f"sqlite:///{store}"


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", uri)


def _artifact_uri(folder: Path) -> str:
    return (folder / "artifacts").as_uri()


def _alone(path: Path) -> AbstractContextManager[object]:
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.warning("another sync is writing into %s: waiting for it", path.parent)
        return lock.acquire()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OverflowError as error:
            raise TrackingError(f"--port {port}: a port is a number from 1 to 65535") from error
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise TrackingError(f"port {port} {reason}: choose another one with --port") from error


# ---- the command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 where a problem was met, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m distillbench.tracking", description="The MLflow view of results.")
    commands = parser.add_subparsers(dest="command", required=True)
    syncing = commands.add_parser("sync", help="bring MLflow up to date with the records")
    syncing.add_argument("--uri", help="tracking URI of a server or database (default: RESULTS/mlflow/mlflow.db)")
    serving = commands.add_parser("ui", help="serve the MLflow page on this machine")
    serving.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: 5000)")
    for command in (syncing, serving):
        command.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "ui":
            ui(options.results, options.port)
        report = sync(options.results, options.uri, progress=_print_progress)
    except (TrackingError, OSError) as error:
        print(f"distillbench.tracking: {error}", file=sys.stderr)
        return 1
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(
        f"MLflow: {report.added} runs added, {report.replaced} replaced, {report.skipped} up to date, "
        f"{len(report.problems)} problems"
    )
    return 1 if report.problems else 0


def _print_progress(done: int, total: int, run: str) -> None:
    if done % 50 == 0 or done == total:
        print(f"MLflow: {done} of {total} runs written, last {run}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
