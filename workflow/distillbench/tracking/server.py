"""An MLflow server for a team, on PostgreSQL: ``make tracking-server``.

    distillbench server [--folder results/tracking-server] [--host 127.0.0.1] [--port 5000]

PostgreSQL is Debian's (or any on the PATH), with a database of its own in the folder, reached by a socket file and by
nobody else. Artifacts are sent through the server. Who wants in needs a name and a password: that of ``admin`` is made
the first time and kept in ``admin-password``, which only its owner can read. The server listens on this machine alone
unless it is told the names that it answers to (``--allowed-hosts``). Ctrl-C ends both, and so does whatever ends this
process; the next start goes on.
"""

import contextlib
import getpass
import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distillbench.locks import locked
from distillbench.tracking.store import OWN_NAMES, QUIET, TrackingError, check_port, import_mlflow

LOOPBACK = ("127.0.0.1", "localhost")
EVERYWHERE = "0.0.0.0"  # nosec B104  # compared with what was asked for
_STOP_SECONDS = 20


def serve(folder: Path, host: str, port: int, allowed_hosts: str | None, new_password: bool = False) -> int:
    """Run PostgreSQL and MLflow until MLflow ends or this process is asked to. Returns the exit status.

    Raises TrackingError: beyond this machine without ``allowed_hosts``, a port that is taken, PostgreSQL that is not
    there, does not start or ends by itself, a database whose password is lost; BusyError: a folder that is served.
    """
    names = _names(host, port, allowed_hosts)
    folder = folder.resolve()  # PostgreSQL's programs are run in another working directory
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", busy=f"{folder}: a tracking server is already running in this folder", wait=False):
        check_port(port, host)
        password = _password(folder, new_password)
        with _postgres(folder) as (database, postgres):
            if new_password:
                _set_password(_of_accounts(database), password)
            with _ending(_mlflow(folder, database, host, port, names, password)) as mlflow:
                _introduce(folder, f"http://{LOOPBACK[0] if host == EVERYWHERE else host}:{port}", names)
                return _until_one_ends(mlflow, postgres, folder)


def _names(host: str, port: int, allowed_hosts: str | None) -> list[str]:
    """The names that the server answers to, besides those of its own machine."""
    names = [name.strip() for name in (allowed_hosts or "").split(",") if name.strip()]
    if host not in LOOPBACK and not names:
        raise TrackingError(
            f"--host {host}: to be reached from other machines the server has to know the names it answers to, "
            "such as --allowed-hosts mlflow.example.org:5000; keep it behind a proxy that speaks HTTPS"
        )
    if wrong := [name for name in names if "*" in name or "/" in name]:
        raise TrackingError(
            f"--allowed-hosts {wrong[0]}: a name as in mlflow.example.org:5000, without http:// and without *, which "
            "would let in other people's pages"
        )
    return names if host in (*LOOPBACK, EVERYWHERE) else [*names, f"{host}:{port}"]


def _introduce(folder: Path, address: str, names: Sequence[str]) -> None:
    file = folder / "admin-password"
    print(f"MLflow: {address}   (starts in a few seconds; user admin, password in {file}; Ctrl-C ends it)")
    if names:
        print(f"From elsewhere: {', '.join(names)}")
    print(
        f'To write into it: MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD="$(cat {shlex.quote(str(file))})" '
        f"distillbench sync --uri {address} --prefix NAME/",
        flush=True,
    )


def _until_one_ends(mlflow: "subprocess.Popen[bytes]", postgres: "subprocess.Popen[bytes]", folder: Path) -> int:
    while (status := mlflow.poll()) is None:
        if postgres.poll() is not None:
            raise TrackingError(
                f"{folder}: PostgreSQL has ended by itself (status {postgres.returncode}); {_log(folder)}"
            )
        time.sleep(0.5)
    return status


def _mlflow(
    folder: Path, database: str, host: str, port: int, names: Sequence[str], password: str
) -> "subprocess.Popen[bytes]":
    settings, artifacts = folder / "basic-auth.ini", folder / "artifacts"
    _write_for_owner(
        settings,
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {_of_accounts(database)}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # seconds that a password is taken as checked: checking it takes longer than the rest of most requests
        "auth_cache_ttl_seconds = 60\n",
    )
    artifacts.mkdir(exist_ok=True)
    artifacts.chmod(0o700)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--app-name", "basic-auth"]
    command += ["--serve-artifacts", "--artifacts-destination", artifacts.as_uri()]
    command += ["--host", host, "--port", str(port), "--workers", "2"]
    command += ["--allowed-hosts", ",".join([*OWN_NAMES, *names])]
    if names:  # pages of this machine's own names may always write
        command += [
            "--cors-allowed-origins",
            ",".join(f"{how}://{name}" for name in names for how in ("http", "https")),
        ]
    environment = {
        **os.environ,
        **QUIET,
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _kept(folder / "secret-key"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    # a command of ours, no shell
    return subprocess.Popen(command, env=environment, start_new_session=True, umask=0o077)  # nosec B603


def _of_accounts(database: str) -> str:
    """The URI of MLflow's other database, that of names, passwords and permissions."""
    return database.replace("/mlflow?", "/mlflow_auth?")


def _password(folder: Path, new: bool) -> str:
    """The password of ``admin``: MLflow makes the account with it, and from then on goes by its database."""
    file = folder / "admin-password"
    if new:
        file.unlink(missing_ok=True)
    elif (folder / "postgres").exists() and not file.exists():
        raise TrackingError(
            f"{file} is gone, and the database knows the old password: put the file back, or have a new one made: "
            f"distillbench server --folder {shlex.quote(str(folder))} --new-password"
        )
    return _kept(file)


def _set_password(accounts: str, password: str) -> None:
    import_mlflow()
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(accounts)
    if store.has_user("admin"):
        store.update_user("admin", password)


def _kept(file: Path) -> str:
    """A secret made once, in a file of its owner's."""
    if not file.exists():
        _write_for_owner(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def _write_for_owner(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(file)


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """PostgreSQL with a cluster in ``folder``: the URI of its database ``mlflow``, all MLflow's, and its process."""
    programs, (user, as_user) = _programs(), _who(folder)
    if _run(["test", "-x", str(folder)], check=False, **as_user).returncode:
        raise TrackingError(
            f"{folder}: PostgreSQL runs as user {user}, who cannot enter this folder or one above it: "
            "choose one with --folder that everybody can enter, such as /srv/mlflow"
        )
    data = folder / "postgres"
    if not data.exists():
        _make_cluster(folder / ".postgres.draft", programs["initdb"], user, as_user)
        (folder / ".postgres.draft").rename(data)
    # not in the folder: a socket's path may have 107 letters
    with tempfile.TemporaryDirectory(prefix="distillbench-postgres-", ignore_cleanup_errors=True) as sockets:
        if as_user:
            shutil.chown(sockets, user)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
        command = [programs["postgres"], "-D", str(data), *options]
        (folder / "postgres.log").touch(mode=0o600)
        with (folder / "postgres.log").open("ab") as log:
            # PostgreSQL as found above, no shell
            process = subprocess.Popen(command, start_new_session=True, stderr=log, cwd="/", **as_user)  # nosec B603
        with _ending(process) as running:
            _wait_until_it_answers(programs, sockets, user, running, folder)
            for database in ("mlflow", "mlflow_auth"):
                done = _run([programs["createdb"], "-h", sockets, "-U", user, database], check=False)
                if done.returncode and "already exists" not in done.stderr:
                    raise TrackingError(f"{data}: PostgreSQL: {done.stderr.strip()}")
            yield f"postgresql+psycopg2://{user}@/mlflow?host={sockets}", running


def _make_cluster(draft: Path, initdb: str, user: str, as_user: dict[str, Any]) -> None:
    """A new cluster in a draft of its folder: where this is killed, the next start makes it again."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if as_user:
        shutil.chown(draft, user)
    _run([initdb, "-D", str(draft), "-A", "trust", "-U", user, "-E", "UTF8", "--no-instructions"], **as_user)


def _wait_until_it_answers(
    programs: dict[str, str], sockets: str, user: str, running: "subprocess.Popen[bytes]", folder: Path
) -> None:
    deadline = time.monotonic() + 60
    while _run([programs["pg_isready"], "-h", sockets, "-U", user], check=False).returncode:
        if running.poll() is not None or time.monotonic() > deadline:
            raise TrackingError(f"{folder}: PostgreSQL does not start; {_log(folder)}")
        time.sleep(0.2)


def _log(folder: Path) -> str:
    """Where PostgreSQL's log is, and its last line but for the goodbye."""
    log = folder / "postgres.log"
    lines = [line for line in log.read_text(errors="replace").splitlines() if "system is shut down" not in line]
    return f"its log is {log} and ends: {''.join(lines[-1:])}"


def _programs() -> dict[str, str]:
    """PostgreSQL's programs: of the PATH, or where Debian keeps the newest."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    found = {name: shutil.which(name, path=path) for name in ("initdb", "postgres", "createdb", "pg_isready")}
    if missing := [name for name, program in found.items() if not program]:
        raise TrackingError(
            f"PostgreSQL: {', '.join(missing)} not found: apt-get install postgresql, or put it on PATH"
        )
    return {name: str(program) for name, program in found.items()}


def _who(folder: Path) -> tuple[str, dict[str, Any]]:
    """The user that PostgreSQL runs as, for it refuses to be root, and how to run a program as them."""
    if os.geteuid():
        return getpass.getuser(), {}
    try:
        postgres = pwd.getpwnam("postgres")
    except KeyError as error:
        raise TrackingError(
            f"{folder}: PostgreSQL does not run as root, and there is no user postgres: start this as another user"
        ) from error
    return "postgres", {"user": postgres.pw_uid, "group": postgres.pw_gid, "extra_groups": []}


def _run(command: Sequence[str], check: bool = True, **as_user: Any) -> "subprocess.CompletedProcess[str]":
    # commands of this module, no shell
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **as_user)  # nosec B603
    if check and done.returncode:
        raise TrackingError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done


# Waits until the other end of its input is closed, by us or by our end, even by SIGKILL. Then it ends the group, which
# MLflow does not do by itself where its database is gone. SIGINT: PostgreSQL ends its connections, too.
_KEEPER = f"""
import os, signal, sys, time
os.read(0, 1)
try:
    os.killpg(int(sys.argv[1]), signal.SIGINT)
    for _ in range({_STOP_SECONDS} * 10):
        time.sleep(0.1)
        os.killpg(int(sys.argv[1]), 0)
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


@contextlib.contextmanager
def _ending(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """A process and its children, which end when the block is left, or when this process is killed."""
    command = [sys.executable, "-I", "-c", _KEEPER, str(process.pid)]
    keeper = subprocess.Popen(  # nosec B603
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        assert keeper.stdin
        keeper.stdin.close()
        process.wait()
        keeper.wait()


def serve_until_ended(folder: Path, host: str, port: int, allowed_hosts: str | None, new_password: bool) -> int:
    """``serve``, which a signal ends with all that it started; the exit status. Raises TrackingError, OSError."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) != signal.SIG_IGN:  # as nohup has it
            signal.signal(sign, lambda number, _: sys.exit(128 + number))  # so that what was started is ended
    try:
        return serve(folder, host, port, allowed_hosts, new_password)
    except KeyboardInterrupt:
        return 0
