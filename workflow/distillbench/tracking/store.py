"""The MLflow store of a results folder: an SQLite database beside its artifacts, or whatever a URI names."""

import errno
import logging
import os
import re
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.tracking.views import VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


class TrackingError(ValueError):
    """A store that cannot be written or shown; the message says what to do."""


QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


# What a server on this machine answers to, by any port: that of a tunnel may be another. MLflow's own list has patterns
# such as 10.*, which fits 10.evil.com: a page of that name could read and write here (DNS rebinding).
OWN_NAMES = ("127.0.0.1:*", "localhost:*")


def import_mlflow() -> None:
    """Import MLflow (3 s) with its telemetry off."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    import mlflow  # noqa: F401


def connect(uri: str) -> "MlflowClient":
    """A client for a store. Raises TrackingError for a folder, which MLflow no longer writes into."""
    if uri.startswith("file:") or "://" not in uri:
        raise TrackingError(
            f"'{without_password(uri)}': MLflow no longer writes into folders: use sqlite:///…, postgresql://… or https://…"
        )
    from mlflow import MlflowClient

    return MlflowClient(uri)


def create_store(store: Path) -> None:
    """Create the database as a draft that is renamed: a kill amid its migrations would leave it unusable."""
    if store.exists():
        experiments(store)  # names a damaged file at once; MLflow would try to open it for 100 seconds
        _check_pages(store)
        return
    for draft in store.parent.glob(f".{store.name}.*"):
        draft.unlink()
    draft = store.with_name(f".{store.name}.{uuid.uuid4().hex}")
    connect(store_uri(draft)).search_experiments(max_results=1)
    for ending in ("-wal", "-shm", "-journal"):  # of a store that was deleted: SQLite would play them into the new one
        store.with_name(store.name + ending).unlink(missing_ok=True)
    draft.replace(store)


def _check_pages(store: Path) -> None:
    """Raises TrackingError where a page of the database is damaged: SQLite finds what breaks its structure."""
    try:
        with closing(sqlite3.connect(store)) as database:
            found = [row[0] for row in database.execute("PRAGMA quick_check(1)")]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    if found != ["ok"]:
        raise TrackingError(
            f"{store}: damaged ({found[0].strip()}): delete it and sync again: the records write it anew"
        )


def experiments(store: Path) -> list[tuple[int, str]]:
    """Ids and names of the data sets' experiments, read from the database itself: importing MLflow takes longer."""
    query = (
        "SELECT experiment_id, name FROM experiments JOIN experiment_tags USING (experiment_id) "
        "WHERE lifecycle_stage = 'active' AND key = ? ORDER BY name"
    )
    try:
        with closing(sqlite3.connect(store)) as database:
            return database.execute(query, [VIEW_TAG]).fetchall()
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{store}: not an MLflow store ({error}): delete it and sync again") from error


def set_aside_if_moved(store: Path, artifacts: str) -> None:
    """A store knows its artifacts by absolute address: in a folder that was moved or copied it is written anew."""
    if store.exists() and _elsewhere(store, artifacts):
        aside = store.with_name(f"{store.name}.moved")
        log.warning("the results folder was moved or copied: %s is written anew, the old one is %s", store, aside)
        store.replace(aside)


def _elsewhere(store: Path, artifacts: str) -> str | None:
    """Where a store has its artifacts, if not in ``artifacts``."""
    query = "SELECT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id) WHERE key = ?"
    try:
        with closing(sqlite3.connect(store)) as database:
            locations = database.execute(query, [VIEW_TAG]).fetchall()
    except sqlite3.DatabaseError:
        return None  # not a store: named where it is opened
    return next((location for (location,) in locations if not location.startswith(f"{artifacts}/")), None)


def check_store(store: Path, artifacts: str) -> None:
    """Raises TrackingError for what a page would show wrongly and a sync would name: damaged, moved, older stores."""
    again = f"distillbench sync --results {store.parent.parent} writes it anew from the records"
    experiments(store)
    _check_pages(store)
    if other := _elsewhere(store, artifacts):
        raise TrackingError(f"{store}: has its artifacts in {other}: the results folder was moved or copied. {again}")
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _verify_schema  # what MLflow asks of a database when it opens it
    from sqlalchemy import create_engine

    try:
        _verify_schema(create_engine(store_uri(store.resolve())))
    except MlflowException as error:
        raise TrackingError(f"{store}: of another version of MLflow ({error}). Delete it, and {again}") from error


@contextmanager
def unhurried_disk(store: Path) -> Iterator[None]:
    """Let SQLite leave it to the system when to write to the disk, and wait for the disk once, at the end.

    Each run takes five transactions; waiting for the disk after each takes longer than all the rest. A killed process
    harms nothing. A power cut during a sync may; the store then has to be deleted, as the error says when it is read,
    and the next sync writes it anew from the records.
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


def store_uri(store: Path) -> str:
    """The URI of an SQLite store. Raises TrackingError for a path that cannot be written as one."""
    if "?" in str(store):
        raise TrackingError(f"{store}: a database cannot have a path with '?': move the results folder")
    return f"sqlite:///{store}"


def without_password(text: str) -> str:
    """A text that may be shown: what comes before an @ in its URIs is left out."""
    return re.sub(r"(\w+://)?[^\s'\"]+@", r"\1…@", text)


def artifact_uri(folder: Path) -> str:
    """Where the artifacts of the store in ``folder`` go."""
    return (folder / "artifacts").as_uri()


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Raises TrackingError where a port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError as error:
            raise TrackingError(f"--port {port}: a port is a number from 1 to 65535") from error
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise TrackingError(f"port {port} {reason}: choose another one with --port") from error
