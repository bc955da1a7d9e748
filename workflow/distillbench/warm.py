"""Warm start: jobs forked from a process that has the libraries imported.

Importing torch and a graph library takes 4-7 s of CPU, what tables and figures are made with 3 s; a job that takes
seconds should not pay that. The first job that needs a library starts a server that imports it (and nothing of
distillbench, so edited code is always what runs) and forks a child for every job from then on. A child is an ordinary
process with the job's working directory, environment and standard streams; if its client dies it is killed, and if it
dies its client fails. The server ends when the Snakemake process that it belongs to ends. Without a server
(``warm_start: false``, another machine, no fork) a job imports what it needs, and does the same.
"""

import contextlib
import hashlib
import importlib
import json
import os
import select
import signal
import socket
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


def call(function: str, arguments: dict[str, Any], *, log: str, library: str | None = None, warm: bool = True) -> None:
    """Run ``function`` ("module:name") with JSON-able ``arguments``, in a fork of a warm process where possible.

    library: what the job needs, a key of PRELOAD, if any; only those are worth a warm process.

    Progress goes to the file ``log``; the line the function returns goes to standard output.

    Raises:
        SystemExit: the job failed; the reason is in ``log`` and on standard error.
    """
    times = {"began": psutil.Process().create_time(), "called": time.time()}
    request = {"function": function, "arguments": arguments, "log": log, "path": sys.path, "times": times}
    owner = int(os.environ.get("DISTILLBENCH_OWNER", "0"))
    connection = _connect(library, owner) if library and warm and owner and hasattr(os, "fork") else None
    if connection is None:
        sys.exit(_execute(request))
    with connection:
        request |= {"directory": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(connection, [b"job"], [1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile().readline()
    if answer.strip() != "0":
        sys.exit(f"the job failed (exit status {answer.strip() or 'unknown'}); see {log}")


def _execute(request: dict[str, Any]) -> int:
    """Run a job here: set up its log, call the function, print what it returns."""
    import logging

    log = Path(request["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    module, name = request["function"].split(":")
    times, run = request["times"], time.time()
    from distillbench.spent import spending, spent_line  # here, for a server is to know nothing of distillbench

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


def _address(library: str, owner: int) -> Path:
    """One server per library, Snakemake process and Python, in a folder only this user can enter."""
    folder = Path(tempfile.gettempdir()) / f"distillbench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(f"{sys.executable}:{owner}:{library}".encode()).hexdigest()[:16]
    return folder / f"{name}.sock"


def _connect(library: str, owner: int) -> socket.socket | None:
    address = _address(library, owner)
    if address.parent.stat().st_uid != os.getuid():
        return None  # somebody else's folder
    with FileLock(f"{address}.lock"):
        connection = _try(address)
        if connection is None:
            command = [sys.executable, "-m", "distillbench.warm", library, str(owner), str(address)]
            paths = os.pathsep.join(entry for entry in sys.path if entry)
            null = subprocess.DEVNULL
            process = subprocess.Popen(
                command,
                stdin=null,
                stdout=null,
                stderr=null,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
            deadline = time.monotonic() + _START_SECONDS
            while connection is None and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
                connection = _try(address)
    return connection


def _try(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


def serve(library: str, owner: int, address: Path) -> None:
    """Import a library and what goes with it, then fork a child for every request, until the owner is gone."""
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
        while jobs or _alive(owner):
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


def _fork(connection: socket.socket, others: list[socket.socket]) -> int | None:
    try:
        _, streams, _, _ = socket.recv_fds(connection, 3, 2)
        request = json.loads(connection.makefile().readline())
    except (OSError, ValueError):
        connection.close()  # a client that died before it had asked
        return None
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
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


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
