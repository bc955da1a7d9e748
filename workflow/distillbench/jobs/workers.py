"""Jobs in processes of their own, several at a time: what Snakemake does elsewhere, for distillbench.jobs.run.

A process has one job, so that its peak memory is the job's. Jobs on a GPU share it.
"""

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from distillbench.data.cards import read_card
from distillbench.jobs.data import prepare_data
from distillbench.jobs.train import train
from distillbench.paths import Paths
from distillbench.record import read_shard, utc_now

_STOP_SECONDS = 10.0

Facts = dict[str, Any]  # what is told of a job: its entry in run.json, and a line of text ("summary")


class Task(NamedTuple):
    """A job: a data set, a shard of seeds, or a part of tuning. needs: names of those that have to be done first."""

    name: str
    arguments: dict[str, Any]  # of _prepare, of jobs.Job, or of ``does``
    needs: tuple[str, ...]
    file: Path  # what the DAG expects of it
    log: Path
    seeds: tuple[int, ...] = ()  # none: no runs that are reported
    does: Callable[..., str] | None = None  # part of tuning; returns a line that sums it up

    @property
    def decides(self) -> Facts:
        """The arguments that decide what comes of a part of tuning."""
        names = ("params", "run", "space", "asked")
        return {name: self.arguments[name] for name in names if name in self.arguments}


def _work(task: Task, connection: Any) -> None:
    """Do one job and send what is to be told of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody: the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # drafts are removed on the way out
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("a") as log:  # what libraries print belongs there, too
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    # jobs run side by side; and cuBLAS is deterministic only with a workspace of fixed size
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUBLAS_WORKSPACE_CONFIG=":4096:8")
    begun = time.monotonic()
    try:
        facts = {"state": "done", **_do(task)}
        logging.info("%s", facts["summary"])
    except Exception as error:
        logging.exception("the job failed")
        facts = {"state": "failed", "summary": f"{type(error).__name__}: {error}"}
    connection.send({**facts, "seconds": round(time.monotonic() - begun, 1), **_peak_memory()})


def _do(task: Task) -> Facts:
    if task.does:
        return {"summary": task.does(**task.arguments)}
    return _train(task) if task.seeds else _prepare(**task.arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _prepare(results: str, name: str, file: str, params: dict[str, Any], files: list[str], sources: list[str]) -> Facts:
    """Write a data set, unless it is there, newer than the code it depends on, and of the files that are there now."""
    folder = Paths(results).data(name)
    written = [folder / "data.npz", folder / "data.json"]
    with contextlib.suppress(OSError, ValueError):
        card = read_card(written[1])
        newest = max(Path(source).stat().st_mtime_ns for source in (file, *sources))
        same = (card.dataset, card.params, card.files) == (Path(file).stem, params, files)
        if same and min(path.stat().st_mtime_ns for path in written) >= newest:
            return {"summary": f"{name}: on disk already"}
    return {"summary": prepare_data(results=results, name=name, file=file, params=params, files=files)}


def _train(task: Task) -> Facts:
    begun = utc_now()
    summary = train(**task.arguments)
    records = read_shard(task.file)
    trained = [record for record in records if record.started >= begun]
    timed = [record for record in trained if record.train_seconds and record.epochs]
    epochs = sum(record.epochs or 0 for record in timed)
    return {
        "summary": summary,
        "seeds": list(task.seeds),
        "statuses": dict(Counter(record.status for record in records)),
        "trained": len(trained),
        "seconds_per_epoch": round(sum(r.train_seconds or 0 for r in timed) / epochs, 4) if epochs else None,
        "environment": max(records, key=lambda record: record.ended).environment,
    }


def _peak_memory() -> Facts:
    """Of this process, MB; and of its tensors on the GPU, where it used one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks: Facts = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        peaks["peak_cuda_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return peaks


def run(
    tasks: Sequence[Task], processes: int, caught: Sequence[int], tell: Callable[[Task, Facts], None]
) -> dict[str, Facts]:
    """Do the jobs, each as soon as what it needs is done, until all are or ``caught`` holds a signal.

    Returns what is to be told of each that ended, by name. state: done, failed, not started (what it needs failed) or
    interrupted.
    """
    spawn = multiprocessing.get_context("spawn")
    waiting, results = list(tasks), dict[str, Facts]()
    running: dict[Any, tuple[Task, Any]] = {}  # by the end of the pipe that its result comes from

    def note(task: Task, facts: Facts) -> None:
        results[task.name] = facts
        tell(task, facts)

    while (waiting or running) and not caught:
        for task in list(waiting):
            states = {need: results[need]["state"] if need in results else None for need in task.needs}
            failed = [need for need, state in states.items() if state in ("failed", "not started")]
            if failed:
                waiting.remove(task)
                note(task, {"state": "not started", "summary": f"it needs {failed[0]}"})
            elif len(running) < processes and all(state == "done" for state in states.values()):
                waiting.remove(task)
                receiver, sender = spawn.Pipe(duplex=False)
                process = spawn.Process(target=_work, args=(task, sender))
                process.start()
                sender.close()
                running[receiver] = task, process
        for connection in wait(list(running), timeout=0.1) if running else ():
            task, process = running.pop(connection)
            note(task, _result(connection, process, stopped=False))
    for _, process in running.values():
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for connection, (task, process) in running.items():
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        note(task, _result(connection, process, stopped=True))
    return results


def _result(connection: Any, process: Any, *, stopped: bool) -> Facts:
    with connection:
        try:
            facts: Facts = connection.recv()
        except EOFError:
            process.join()
            facts = {"state": "interrupted", "summary": "finished seeds are kept"}
            if not stopped:
                cause = ": killed, which is what a system out of memory does" if process.exitcode == -9 else ""
                facts = {"state": "failed", "summary": f"its process ended with exit status {process.exitcode}{cause}"}
    process.join()
    return facts
