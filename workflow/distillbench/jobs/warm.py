"""Warm start: jobs forked from a process that has the libraries imported.

Importing torch and a graph library takes 4-7 s of CPU, what tables and figures are made with 3 s; a job that takes
seconds should not pay that. The first job that needs a library starts a server that imports it (and nothing of
distillbench, so edited code is always what runs) and forks a child for every job from then on. A child is an ordinary
process with the job's working directory, environment and standard streams; if its client dies it is killed, and if it
dies its client fails. The server ends when the Snakemake process that it belongs to ends. Without a server
(``warm_start: false``, another machine than Snakemake's, no fork, a server that does not start) a job imports what it
needs, and does the same.
"""

import contextlib
import hashlib
import importlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

PRELOAD = {
    "pyg": ("torch_geometric.nn", "torch_geometric.data"),
    "dgl": ("dgl", "dgl.nn.pytorch"),
    "csr": (),  # torch alone
    "tables": (
        "great_tables", "jinja2", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "pandas",
        "pyarrow.parquet", "scikit_posthocs", "scipy.optimize", "scipy.stats", "statsmodels.stats.power",
    ),
}  # fmt: skip
# pydantic imports its own parts when they are used
_COMMON = ("pydantic.functional_validators", "pydantic.json_schema", "pydantic.types", "numpy", "yaml")
# torch imports torch._dynamo by itself when the first optimiser is made: 2 s
_TORCH = ("torch", "torch._dynamo", "torch.utils.benchmark", "torch.utils.flop_counter")
_START_SECONDS = 120.0
_LONGEST_ADDRESS = 103  # bytes of a Unix socket's path: 107 on Linux, 103 on macOS and BSD
_TAKEN = "taken\n"  # a child's first word: from here on the job is its own, and must not be run by its client as well


def call(function: str, arguments: dict[str, Any], *, log: str, library: str | None = None, warm: bool = True) -> None:
    """Run ``function`` ("module:name") with JSON-able ``arguments``, in a fork of a warm process where possible.

    library: what the job needs, a key of PRELOAD, if any; only those are worth a warm process.

    Progress goes to the file ``log``; the line the function returns goes to standard output.

    Raises:
        SystemExit: the job failed; the reason is in ``log`` and on standard error.
    """
    times = {"began": psutil.Process().create_time(), "called": time.time()}
    request = {"function": function, "arguments": arguments, "log": log, "path": sys.path, "times": times}
    owner = os.environ.get("DISTILLBENCH_OWNER", "")
    if library and warm and hasattr(os, "fork") and _process(owner):
        try:
            status = _run_warm(request, library, owner)
        except OSError as error:
            status, request["remark"] = None, f"{error}; this job imports what it needs itself"
        if status == "0":
            return
        if status is not None:
            sys.exit(f"the job failed (exit status {status or 'unknown'}); see {log}")
    sys.exit(_execute(request))


def owner() -> str:
    """This process, as the owner of servers (DISTILLBENCH_OWNER): its host, its number and when it was made.

    A batch system hands the environment on to other machines, where the number alone would be somebody else's.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def _process(owner: str) -> psutil.Process | None:
    """The process that an owner's name stands for, if it is on this machine and there."""
    try:
        host, pid, made = owner.rsplit(":", 2)
        process = psutil.Process(int(pid))
        # the time a process was made is relative to the boot's, which is known to a second
        same = host == socket.gethostname() and abs(process.create_time() - float(made)) < 2
    except (ValueError, OverflowError, psutil.Error):
        return None
    return process if same else None


def _run_warm(request: dict[str, Any], library: str, owner: str) -> str | None:
    """Have a server run a job. Its exit status, empty if the server died meanwhile; None if no server has taken it.

    Raises:
        OSError: there is no server to be had, and why.
    """
    connection = _connect(library, owner)
    if connection is None:
        return None
    request = request | {"directory": str(Path.cwd()), "environment": dict(os.environ)}
    with connection, connection.makefile() as answers:
        try:
            socket.send_fds(connection, [b"job"], [1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            if answers.readline() != _TAKEN:
                return None
        except OSError:
            return None  # the server ended before it took the job
        try:
            return answers.readline().strip()
        except OSError:
            return ""


def _execute(request: dict[str, Any]) -> int:
    """Run a job here: set up its log, call the function, print what it returns."""
    import logging

    log = Path(request["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    if "remark" in request:
        logging.warning("%s", request["remark"])
    module, name = request["function"].split(":")
    times, run = request["times"], time.time()
    from distillbench.durations import spending, spent_line  # here, for a server is to know nothing of distillbench

    try:
        with spending("imports"):
            function = getattr(importlib.import_module(module), name)
        summary = function(**request["arguments"])
    except Exception as error:
        logging.exception("the job failed")
        print(f"{type(error).__name__}: {error}\nThe whole traceback is in {log}", file=sys.stderr, flush=True)
        return 1
    logging.info("%s", summary)
    before = {"start": times["called"] - times["began"], "library": run - times["called"]}
    logging.info("%s", spent_line(time.time() - times["began"], before))
    print(summary, flush=True)
    return 0


def _address(library: str, owner: str) -> Path:
    """One server per library, Snakemake process and Python, in a folder only this user can enter.

    Raises:
        OSError: there is no such folder, or it is not this user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"distillbench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder}: has to be a folder that only its owner, this user, can enter (mode 700)")
    name = hashlib.sha256(f"{sys.executable}:{owner}:{library}".encode()).hexdigest()[:16]
    return folder / f"{name}.sock"


def _connect(library: str, owner: str) -> socket.socket | None:
    """A connection to the server, started if need be. None if it is known not to start.

    Raises:
        OSError: it does not start now, and why; later jobs do not try again.
    """
    address = _address(library, owner)
    failed = address.with_suffix(".failed")
    with FileLock(f"{address}.lock"):
        if failed.exists():
            return None
        try:
            return _try(address) or _start(library, owner, address)
        except OSError as error:
            failed.write_text(f"{error}\n", encoding="utf-8")
            raise


def _start(library: str, owner: str, address: Path) -> socket.socket:
    """Start a server and connect to it. Raises OSError where that fails."""
    if len(os.fsencode(address)) > _LONGEST_ADDRESS:
        raise OSError(f"{address}: too long for a socket's address, set TMPDIR to a shorter folder")
    command = [sys.executable, "-m", "distillbench.jobs.warm", library, owner, str(address)]
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    null, errors = subprocess.DEVNULL, address.with_suffix(".err")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(  # this interpreter, with a module of ours  # nosec B603
            command,
            stdin=null,
            stdout=null,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        if connection := _try(address):
            return connection
    process.kill()  # one that is late would serve nobody
    said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing said"]
    raise OSError(f"no warm process with {library}: {said[-1]} ({errors})")


def _try(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:  # too long an address among them
        connection.close()
        return None
    return connection


def serve(library: str, owner: str, address: Path) -> None:
    """Import a library and what goes with it, then fork a child for every request, until the owner is gone.

    Raises:
        ProcessLookupError: the owner is gone already.
    """
    snakemake = _process(owner)
    if snakemake is None:
        raise ProcessLookupError(f"{owner}: no such process on {socket.gethostname()}")
    os.environ.setdefault("DGLBACKEND", "pytorch")
    for module in (*_COMMON, *(() if library == "tables" else _TORCH), *PRELOAD[library]):
        importlib.import_module(module)
    with contextlib.suppress(FileNotFoundError):
        address.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(64)
    jobs: dict[int, socket.socket] = {}
    try:
        while jobs or snakemake.is_running():
            readable, _, _ = select.select([listener, *jobs.values()], [], [], 0.05 if jobs else 0.5)
            if listener in readable:
                connection, _ = listener.accept()
                pid = _fork(connection, [listener, *jobs.values()])
                if pid:
                    jobs[pid] = connection
            for pid, connection in list(jobs.items()):
                if connection in readable:  # a client says nothing more: it hung up
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    with contextlib.suppress(OSError):
                        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                    jobs.pop(pid).close()
    finally:
        with contextlib.suppress(FileNotFoundError):
            address.unlink()
    address.with_suffix(".err").unlink(missing_ok=True)  # nothing went wrong


def _fork(connection: socket.socket, others: list[socket.socket]) -> int | None:
    try:
        _, streams, _, _ = socket.recv_fds(connection, 3, 2)
        request = json.loads(connection.makefile().readline())
    except (OSError, ValueError):
        connection.close()  # a client that died before it had asked
        return None
    try:
        pid = os.fork()
    except OSError:  # no memory for one more: its client runs the job
        for stream in streams:
            os.close(stream)
        connection.close()
        return None
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            connection.sendall(_TAKEN.encode())
            for other in (connection, *others):
                other.close()
            for number, stream in enumerate(streams, start=1):
                os.dup2(stream, number)
            os.chdir(request["directory"])
            os.environ.clear()
            os.environ.update(request["environment"])
            sys.path[:] = request["path"]
            code = _execute(request)
            sys.stdout.flush()
        finally:
            os._exit(code)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    for stream in streams:
        os.close(stream)
    return pid


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
