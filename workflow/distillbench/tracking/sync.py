"""The MLflow view of a results folder: one idempotent writer (``sync``) and the page (``ui``).

Records on disk are the truth; MLflow shows them. One experiment per data set, one flat run per record, and one run
named "summary" per data set that holds tables, figures and the report, with the conclusions as its description.
Deleting ``results/mlflow`` loses nothing: the next sync writes it again. MLflow is imported inside the functions,
because that takes about three seconds.
"""

import gc
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from distillbench.locks import locked
from distillbench.record import write_atomically
from distillbench.tracking.runs import (
    RUN_TAG,
    Source,
    curve_metrics,
    dataset_inputs,
    final_metrics,
    flat,
    legal_key,
    read_sources,
    run_name,
    run_tags,
    start_and_end,
)
from distillbench.tracking.store import (
    OWN_NAMES,
    QUIET,
    TrackingError,
    artifact_uri,
    check_port,
    check_store,
    connect,
    create_store,
    experiments,
    import_mlflow,
    set_aside_if_moved,
    store_uri,
    unhurried_disk,
    without_password,
)
from distillbench.tracking.views import VIEW, view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

DIGEST_TAG = "distillbench.digest"
FOLDER_TAG = "distillbench.folder"  # of an experiment: the id of the results folder that it shows
METRICS_A_CALL, PARAMS_A_CALL, ENTITIES_A_CALL = 1000, 100, 1000  # MLflow's limits for one log_batch
PARAM_LENGTH, TAG_LENGTH = 6000, 5000  # characters

Progress = Callable[[int, int, str], None]


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
    prefix: str = "",
    take_over: bool = False,
    artifact_location: str | None = None,
    progress: Progress | None = None,
) -> SyncReport:
    """Bring MLflow up to date with the records below ``results``; a second call has nothing to do.

    Without ``tracking_uri`` the store is ``results/mlflow/mlflow.db``. Artifacts go below ``artifact_location`` (a
    URI), by default ``results/mlflow/artifacts``, or where the server says if ``tracking_uri`` is a server's.
    ``prefix`` comes before the names of experiments: on a server that several results folders are written to, each
    needs its own, for runs of the same name replace each other. An experiment of another results folder, which is known
    by the id in ``results/.tracking-id``, is refused, unless this folder is to ``take_over`` it.
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
    waiting = f"another sync is writing into {folder}: waiting for it"
    with locked(folder / ".sync.lock", busy=waiting), _collecting_rarely():
        uri = tracking_uri or store_uri(folder / "mlflow.db")
        if artifact_location is None and not uri.startswith(("http:", "https:")):
            artifact_location = artifact_uri(folder)
        import_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if tracking_uri is not None:
                folder_tag = {FOLDER_TAG: _folder_id(results)}
                return _sync(results, connect(uri), prefix, artifact_location, folder_tag, take_over, progress)
            set_aside_if_moved(folder / "mlflow.db", artifact_uri(folder))
            with unhurried_disk(folder / "mlflow.db"):
                create_store(folder / "mlflow.db")
                return _sync(results, connect(uri), prefix, artifact_location, {}, take_over, progress)
        except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: the driver of a database
            status = error.get_http_status_code() if isinstance(error, MlflowException) else None
            reason = str(error)
            if status == 401:
                reason = "refused: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are not right"
            elif status == 403:
                reason += " (where an experiment is somebody else's, choose names of your own with --prefix)"
            elif tracking_uri is None:
                reason += f" (delete {folder} and sync again: the records write it anew)"
            raise TrackingError(without_password(f"MLflow store {uri}: {reason}")) from error


def ui(results: Path, port: int = 5000) -> NoReturn:
    """Serve the MLflow page of ``results`` on 127.0.0.1, until interrupted.

    Prints first its address and, for each data set, that of the table with its metrics; then this process becomes
    the server. Raises TrackingError where there is no store yet, or the port is taken, or for what check_store says.
    """
    folder = results / "mlflow"
    store = folder / "mlflow.db"
    if not store.exists():
        raise TrackingError(f"{store} does not exist: run snakemake first (or distillbench sync --results {results})")
    check_port(port)
    check_store(store, artifact_uri(folder.resolve()))
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow UI: {address}   (starts in a few seconds; Ctrl-C stops it)")
    for experiment, name in experiments(store):
        print(f"  {name}: {address}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store_uri(store.resolve())]
    command += ["--default-artifact-root", artifact_uri(folder.resolve()), "--no-serve-artifacts"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", ",".join(OWN_NAMES)]
    # Job execution starts more processes, for evaluating language models.
    os.execve(command[0], command, {**os.environ, **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})  # nosec B606


def _folder_id(results: Path) -> str:
    """What tells results folders apart that share a server, made once: it moves with the folder."""
    file = results / ".tracking-id"
    if not file.exists():
        write_atomically(file, uuid.uuid4().hex)
    return file.read_text()


def _sync(
    results: Path,
    client: "MlflowClient",
    prefix: str,
    artifact_location: str | None,
    folder_tag: dict[str, str],
    take_over: bool,
    progress: Progress | None,
) -> SyncReport:
    problems: list[str] = []
    sources = read_sources(results, problems)
    added = replaced = skipped = 0
    stale: list[tuple[Source, str, list[str]]] = []  # what to write, into which experiment, instead of which runs
    for dataset in dict.fromkeys(source.dataset for source in sources):
        records = [source.record for source in sources if source.dataset == dataset and source.record]
        try:
            tags = view_tags(records) | folder_tag
            experiment = _experiment(client, prefix + dataset, artifact_location, tags, take_over)
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
    inputs = dataset_inputs(results, {source.dataset for source, _, _ in stale}, problems)
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
    _without_doubles(client, {experiment for _, experiment, _ in stale})
    return SyncReport(added, replaced, skipped, tuple(problems))


def _experiment(
    client: "MlflowClient", name: str, artifact_location: str | None, tags: dict[str, str], take_over: bool
) -> str:
    location = f"{artifact_location.rstrip('/')}/{name}" if artifact_location else None
    found = client.get_experiment_by_name(name)
    if found is None:
        kind = {
            "mlflow.experimentKind": "custom_model_development"
        }  # else the page takes it for one of language models
        return str(client.create_experiment(name, location, kind | tags))
    if not take_over and found.tags.get(FOLDER_TAG) not in (None, tags.get(FOLDER_TAG)):
        raise TrackingError(
            f"MLflow experiment '{name}' shows another results folder: choose names of your own, such as with "
            "--prefix alice/ (or --take-over where this folder is to replace that one's runs)"
        )
    if location and found.artifact_location != location:
        raise TrackingError(
            f"MLflow experiment '{name}' keeps its artifacts in {found.artifact_location}, not in {location}: it is "
            "another results folder's, or this one was moved or copied. Rename or delete the experiment and sync again."
        )
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for tag, value in tags.items():
        if found.tags.get(tag) != value:
            client.set_experiment_tag(found.experiment_id, tag, value)
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


def _without_doubles(client: "MlflowClient", experiments: set[str]) -> None:
    """A run that was made when the answer was lost, and so made again, is left without a digest: it is deleted."""
    for experiment in experiments:
        for runs in _present(client, experiment).values():
            whole = [run for run in runs if DIGEST_TAG in run.data.tags]
            for run in runs:
                if whole and run not in whole:
                    client.delete_run(run.info.run_id)


def _write(
    client: "MlflowClient", experiment: str, source: Source, data: "DatasetInput | None", problems: list[str]
) -> None:
    """Write one run. Raises TrackingError naming the record where MLflow cannot show it; the run is then removed."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    start, end = start_and_end(source)
    name, tags = run_name(source), {key: value[:TAG_LENGTH] for key, value in run_tags(source).items()}
    run = client.create_run(experiment, start_time=start, run_name=name, tags=tags).info
    run_id, uri = run.run_id, run.artifact_uri
    try:
        if data:
            client.log_inputs(run_id, datasets=[data])
        # what client.log_artifact does, without reading each run back to learn where its artifacts go
        artifacts = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
        for file in source.files:
            artifacts.log_artifact(str(file), None if source.record else file.parent.name)
        failed = source.record and source.record.status not in ("ok", "skipped")
        metrics, params = [], {}
        if source.record:
            params = {legal_key(k): v[:PARAM_LENGTH] for k, v in flat(source.record.hyperparameters).items()}
            metrics = [*final_metrics(source.record, end), *curve_metrics(source, start, problems)]
        finish = partial(client.set_terminated, run_id, "FAILED" if failed else "FINISHED", end_time=end)
        _log(client, run_id, metrics, params, source.digest, finish)
    except (FileNotFoundError, MlflowException) as error:
        if isinstance(error, MlflowException) and error.error_code != "INVALID_PARAMETER_VALUE":
            raise  # the store is at fault, not this record
        client.delete_run(run_id)
        raise TrackingError(f"{source.files[0]}: not shown in MLflow: {error}") from error


def _log(
    client: "MlflowClient",
    run_id: str,
    metrics: list["Metric"],
    params: dict[str, str],
    source_digest: str,
    finish: Callable[[], None],
) -> None:
    """All metrics and params in as few calls as the limits allow: each call is one or more transactions.

    The digest's tag is written by the last of them, and MLflow writes the tags of a call after the rest of it: a run
    that has the tag is complete. ``finish`` comes before it, so that no run without its end is taken for complete.
    """
    from mlflow.entities import Param, RunTag

    items = [Param(key, value) for key, value in params.items()]
    tag = [RunTag(DIGEST_TAG, source_digest)]
    for i in range(PARAMS_A_CALL, len(items), PARAMS_A_CALL):
        client.log_batch(run_id, params=items[i : i + PARAMS_A_CALL], synchronous=True)
    last = min(METRICS_A_CALL, ENTITIES_A_CALL - len(tag) - min(len(items), PARAMS_A_CALL))
    for i in range(last, len(metrics), METRICS_A_CALL):
        client.log_batch(run_id, metrics=metrics[i : i + METRICS_A_CALL], synchronous=True)
    finish()
    client.log_batch(run_id, metrics=metrics[:last], params=items[:PARAMS_A_CALL], tags=tag, synchronous=True)


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Fewer garbage collections: SQLAlchemy's hundreds of objects a run make one after another, a fifth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def track(results: str, synced: str) -> str:
    """Bring MLflow up to date with the records. Raises TrackingError naming what could not be shown."""
    report = sync(Path(results))
    if report.problems:
        raise TrackingError("\n".join(report.problems))
    counts = {"added": report.added, "replaced": report.replaced, "unchanged": report.skipped}
    write_atomically(Path(synced), json.dumps(counts) + "\n")
    return "MLflow: " + ", ".join(f"{number} {what}" for what, number in counts.items())
