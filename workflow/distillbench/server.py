"""An MLflow server for a team, on PostgreSQL: ``make tracking-server``.

    python -m distillbench.server [--folder results/tracking-server] [--host 127.0.0.1] [--port 5000]

PostgreSQL is Debian's (or any on the PATH), with a database of its own in the folder, reached by a socket file and by
nobody else. Artifacts are sent through the server. Who wants in needs a name and a password: that of ``admin`` is made
the first time and kept in ``admin-password``, which only its owner can read. The server listens on this machine alone
unless it is told the names that it answers to (``--allowed-hosts``). Ctrl-C ends both; the next start goes on.
"""

import argparse
import contextlib
import getpass
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distillbench.mlflow_store import QUIET, TrackingError, check_port

LOOPBACK = ("127.0.0.1", "localhost")
_STOP_SECONDS = 20.0


def serve(folder: Path, host: str, port: int, allowed_hosts: str | None) -> int:
    """Run PostgreSQL and MLflow until one of them ends or this process is asked to. Returns the exit status.

    Raises TrackingError: beyond this machine without ``allowed_hosts``, a port that is taken, PostgreSQL that is not
    there or does not start.
    """
    if host not in LOOPBACK and not allowed_hosts:
        raise TrackingError(
            f"--host {host}: to be reached from other machines the server has to know the names it answers to, "
            "such as --allowed-hosts mlflow.example.org:5000; keep it behind a proxy that speaks HTTPS"
        )
    check_port(port, host)
    folder = folder.resolve()  # PostgreSQL's programs are run in another working directory
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _postgres(folder / "postgres") as database,
        _ending(_mlflow(folder, database, host, port, allowed_hosts)) as it,
    ):
        print(f"MLflow: http://{host}:{port}   (user admin, password in {folder / 'admin-password'}; Ctrl-C ends it)")
        print(
            f"To write into it: MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=$(cat {folder}/admin-password) "
            f"python -m distillbench.tracking sync --uri http://{host}:{port}",
            flush=True,
        )
        return it.wait()


def _mlflow(folder: Path, database: str, host: str, port: int, allowed_hosts: str | None) -> "subprocess.Popen[bytes]":
    settings = folder / "basic-auth.ini"
    _write_for_owner(
        settings,
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = {database.replace('/mlflow?', '/mlflow_auth?')}\n"
        f"admin_username = admin\nadmin_password = {_kept(folder / 'admin-password')}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
    )
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--app-name", "basic-auth"]
    command += ["--serve-artifacts", "--artifacts-destination", (folder / "artifacts").as_uri()]
    command += ["--host", host, "--port", str(port), "--workers", "2"]
    command += ["--allowed-hosts", allowed_hosts] if allowed_hosts else []
    environment = {
        **os.environ,
        **QUIET,
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _kept(folder / "secret-key"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    # a command of ours, no shell
    return subprocess.Popen(command, env=environment, start_new_session=True)  # nosec B603


def _kept(file: Path) -> str:
    """A secret made once, in a file of its owner's."""
    if not file.exists():
        _write_for_owner(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def _write_for_owner(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
    draft.replace(file)


@contextlib.contextmanager
def _postgres(data: Path) -> Iterator[str]:
    """PostgreSQL with a cluster in ``data``; the URI of its database ``mlflow``, in which everything is MLflow's."""
    programs, as_user, user = _programs(), *_who(data)
    # a socket's path may have 107 letters; only the owner may go into the folder
    name = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    sockets = Path(tempfile.gettempdir()) / f"distillbench-postgres-{name}"
    for each in (data, sockets):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
        each.chmod(0o700)
        if as_user:
            shutil.chown(each, user, user)
    if not (data / "PG_VERSION").exists():
        _run(
            [
                *as_user,
                programs["initdb"],
                "-D",
                str(data),
                "-A",
                "trust",
                "-U",
                user,
                "-E",
                "UTF8",
                "--no-instructions",
            ]
        )
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
    command = [*as_user, programs["postgres"], "-D", str(data), *options]
    # PostgreSQL as found above, no shell
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)  # nosec B603
    with _ending(process) as running:
        _wait_until_it_answers(programs, sockets, user, running, data)
        for database in ("mlflow", "mlflow_auth"):
            done = _run([programs["createdb"], "-h", str(sockets), "-U", user, database], check=False)
            if done.returncode and "already exists" not in done.stderr:
                raise TrackingError(f"{data}: PostgreSQL: {done.stderr.strip()}")
        yield f"postgresql+psycopg2://{user}@/mlflow?host={sockets}"


def _wait_until_it_answers(
    programs: dict[str, str], sockets: Path, user: str, running: "subprocess.Popen[Any]", data: Path
) -> None:
    deadline = time.monotonic() + 60
    while _run([programs["pg_isready"], "-h", str(sockets), "-U", user], check=False).returncode:
        if running.poll() is not None or time.monotonic() > deadline:
            raise TrackingError(
                f"{data}: PostgreSQL does not start; `{programs['postgres']} -D {data}` says why"
                + (f" (user {user} has to be able to enter the folders above)" if user == "postgres" else "")
            )
        time.sleep(0.2)


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


def _who(data: Path) -> tuple[list[str], str]:
    """How to run as the user that PostgreSQL runs as, and who that is: it refuses to be root."""
    if os.geteuid():
        return [], getpass.getuser()
    runuser = shutil.which("runuser")
    if not runuser:
        raise TrackingError(f"{data}: PostgreSQL does not run as root; start this as another user")
    return [runuser, "-u", "postgres", "--"], "postgres"


def _run(command: Sequence[str], check: bool = True) -> "subprocess.CompletedProcess[str]":
    # commands of this module, no shell
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # nosec B603
    if check and done.returncode:
        raise TrackingError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


@contextlib.contextmanager
def _ending(process: "subprocess.Popen[Any]") -> "Iterator[subprocess.Popen[Any]]":
    """A process and its children, asked to end when the block is left."""
    try:
        yield process
    finally:
        for sign in (signal.SIGINT, signal.SIGKILL):  # PostgreSQL: SIGINT ends its connections, too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                break


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m distillbench.server", description="An MLflow server for a team.")
    parser.add_argument("--folder", type=Path, default=Path("results/tracking-server"), help="databases and artifacts")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument(
        "--allowed-hosts", help="names that the server answers to, by comma; beyond this machine needed"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    try:
        return serve(options.folder, options.host, options.port, options.allowed_hosts)
    except KeyboardInterrupt:
        return 0
    except (TrackingError, OSError) as error:
        print(f"distillbench.server: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
