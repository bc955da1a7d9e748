"""Train what a config asks for, or a part of it, without Snakemake: on a lent GPU, or as a trial of a large model.

    distillbench run gpu-paper --no-snakemake --cores 4 --publish gpu-paper
    distillbench run gpu-paper --no-snakemake --method teacher --seeds 0 --epochs 2 --results trial

The jobs are those of the DAG, with its parameters, keys and folders: a later ``snakemake`` with the same config finds
every finished seed and trains none again. A GPU is used where PyTorch finds one; its jobs share it. What is needed:
torch, torch-geometric, numpy, pydantic, filelock, PyYAML, click, and optuna where the config has ``tune``. Where the
package is not installed, ``PYTHONPATH=workflow python -m distillbench`` is the command. Tables take pandas and more.
"""

import contextlib
import json
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from distillbench.config.config import ConfigError
from distillbench.config.yaml_files import read_values
from distillbench.jobs.selection import Options, all_names, select
from distillbench.jobs.train import FINISHED
from distillbench.jobs.tune import tune
from distillbench.jobs.workers import Facts, Task, run
from distillbench.paths import home
from distillbench.plan.plan import Plan, make_plan
from distillbench.record import file_digest, utc_now, write_atomically

REFERENCE = Path("results/reference")


# what to do


def with_settings(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The values of a config with some of them set, as ``--set KEY=VALUE`` has it. Raises ConfigError."""
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found:
            raise ConfigError(f"--set {setting}: must be KEY=VALUE")
        try:
            _place(values, key.split("."), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: {error}") from None
    return values


def read_plan(options: Options, settings: Sequence[str], values: dict[str, Any] | None = None) -> Plan:
    """The plan of the config file, or of ``values`` in its place, with what the options change. Raises ConfigError."""
    values = values or with_settings(read_values(options.config), settings)
    own_results = values.get("results", "results")
    if options.results:
        values["results"] = str(options.results)
    if options.seeds and isinstance(values.get("seeds"), int):
        values["seeds"] = max(values["seeds"], options.seeds[-1] + 1)
    plan = make_plan(values, [options.config], home())
    if not options.epochs:
        return plan
    if not options.results or options.results.resolve() == Path(own_results).resolve():
        raise ConfigError(f"--epochs is for a trial: give it a folder other than {own_results!r}, by --results")
    for name, entry in plan.config.datasets.items():
        for pair_name, pair in entry.pairs.items():
            for key, training in (("training", pair.training), ("teacher_training", pair.teacher_training)):
                if training:
                    keys = ["datasets", name, "pairs", pair_name, key, "epochs"]
                    _place(values, keys, min(options.epochs, training.epochs))
    return make_plan(values, [options.config], home())


def _place(values: dict[str, Any], keys: Sequence[str], value: object) -> None:
    """Set a nested value. What is on the way is copied: YAML's aliases share it with other entries."""
    for key in keys[:-1]:
        below = values.get(key)
        if not (below is None or isinstance(below, dict)):
            raise ConfigError(f"{'.'.join(keys)}: {key!r} is {below!r}, nothing can be set below it")
        values[key] = dict(below or {})
        values = values[key]
    values[keys[-1]] = value


# what is told


def write_report(path: Path, facts: Facts, results: dict[str, Facts], known: set[str]) -> dict[str, Facts]:
    """Write ``run.json``; returns the entries of its jobs.

    A job that had nothing left to train keeps the entry of the call that trained it.
    """
    earlier: Facts = {}
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads(path.read_text())
    jobs = {name: entry for name, entry in earlier.get("jobs", {}).items() if name in known}
    for name, result in results.items():
        entry = {key: value for key, value in result.items() if key != "summary" or result["state"] != "done"}
        if entry.get("trained") == 0 and "seconds_per_epoch" in jobs.get(name, {}):
            entry = {**jobs[name], "seeds": entry["seeds"], "statuses": entry["statuses"], "state": "done"}
        jobs[name] = entry
    environments = [jobs[name]["environment"] for name in jobs if jobs[name].get("environment")]
    content = {
        **facts,
        "states": dict(Counter(result["state"] for result in results.values())),
        "statuses": dict(sum((Counter(entry.get("statuses", {})) for entry in jobs.values()), Counter())),
        "environments": [json.loads(text) for text in sorted({json.dumps(e, sort_keys=True) for e in environments})],
        "jobs": jobs,
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    return jobs


def table(jobs: dict[str, Facts]) -> str:
    """What each job cost."""
    rows: list[tuple[str, ...]] = [("job", "state", "trained", "seconds", "s/epoch", "peak MB", "CUDA MB")]
    columns = ("state", "trained", "seconds", "seconds_per_epoch", "peak_memory_mb", "peak_cuda_memory_mb")
    for name, entry in jobs.items():
        values = [entry.get(column) for column in columns]
        rows.append((name, *["-" if value is None else str(value) for value in values]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(row) for row in aligned)


def publish(root: Path, folder: Path, tasks: Sequence[Task], results: dict[str, Facts]) -> str:
    """Copy records, histories, chosen values and run.json, no weights, of the jobs that are done.

    Raises ConfigError if no run is finished.
    """
    done = [task for task in tasks if task.seeds and results.get(task.name, {}).get("state") == "done"]
    if not any(results[task.name]["statuses"].get(status) for task in done for status in FINISHED):
        raise ConfigError(f"nothing is published to {folder}: no run is finished")
    files = [root / "run.json"]
    for task in done:
        files += [task.file, *[task.file.parent / f"seed-{seed}.json" for seed in task.seeds]]
        files += [task.file.parent / f"seed-{seed}.history.csv" for seed in task.seeds]
    tuned = [task for task in tasks if task.does is tune and results.get(task.name, {}).get("state") == "done"]
    files += [task.file for task in tuned]
    for file in files:
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return f"{len(files)} files of {len(done) + len(tuned)} jobs are in {folder}"


def _withdraw(options: Options, plan: Plan, tasks: Sequence[Task]) -> None:
    """Remove files of records and chosen values that the config itself does not ask for (``--seeds``, ``--set``).

    Snakemake would take them for finished, and miss the other seeds. The seeds' own records stay, and are found; so do
    trials.
    """
    asked: dict[str, dict[str, Any]] = {}
    tuning: dict[Path, dict[str, Any]] = {}
    with contextlib.suppress(ConfigError):  # a config that cannot run without --set
        by_itself = read_plan(options, [])
        asked = by_itself.expected(further=True)
        tuning = {task.file: task.decides for task in select(by_itself, options) if task.does}
    written = plan.expected(further=True)
    for task in tasks:
        if task.seeds and asked.get(str(task.file)) != {**written[str(task.file)], "seeds": list(task.seeds)}:
            task.file.unlink(missing_ok=True)
        if task.does and tuning.get(task.file) != task.decides:
            task.file.unlink(missing_ok=True)


def run_jobs(
    options: Options, values: dict[str, Any] | None = None, finish: Callable[[Plan], None] | None = None
) -> int:
    """Train what is asked for; the exit status. Raises ConfigError.

    values: of the config, where they are not as its file has them. finish: gets the plan when all of it is trained.
    """
    plan = read_plan(options, options.settings, values)
    tasks = select(plan, options)
    runs = sum(len(task.seeds) for task in tasks)
    if options.list:
        for task in tasks:
            seeds = f"  seeds {', '.join(map(str, task.seeds))}" if task.seeds else ""
            print(f"{task.name}{seeds}{'  after ' if task.needs else ''}{', '.join(task.needs)}")
        print(f"{len(tasks)} jobs, {runs} runs")
        return 0

    begun, started, caught = time.monotonic(), utc_now(), list[int]()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: caught.append(number))
    print(
        f"{len(tasks)} jobs, {runs} runs, {options.processes} at a time; logs: {plan.paths.root}/logs/run", flush=True
    )
    for backend in set(plan.missing) - set(options.backends or ()):
        print(f"{plan.missing[backend]}: its cells are left out", flush=True)
    ended: list[str] = []

    def tell(task: Task, facts: Facts) -> None:
        ended.append(task.name)
        text = facts["summary"]
        if facts["state"] != "done":
            log = f"; see {task.log}" if facts["state"] == "failed" else ""
            text = f"{task.name}: {facts['state']}: {text}{log}"
        elapsed = timedelta(seconds=int(time.monotonic() - begun))
        print(f"{len(ended)} of {len(tasks)} jobs, {elapsed}: {text}", flush=True)

    results = run(tasks, options.processes, caught, tell)
    known = {task.name for task in tasks} | set(all_names(plan))
    facts = {
        "command": shlex.join(["distillbench", *sys.argv[1:]]),
        "config": {"file": str(options.config), "sha256": file_digest(options.config)},
        "started": started,
        "ended": utc_now(),
        "seconds": round(time.monotonic() - begun, 1),
        "processes": options.processes,
    }
    report = plan.paths.root / "run.json"
    jobs = write_report(report, facts, results, known)
    print(f"\n{table({name: jobs[name] for name in ended})}\n\n{report}")
    errors = sum(result.get("statuses", {}).get("error", 0) for result in results.values())
    status = 0 if all(result["state"] == "done" for result in results.values()) and not errors else 1
    if caught:
        print("Stopped. Finished seeds are kept; the same command goes on from there.")
        status = 128 + caught[0]
    elif options.publish:
        try:
            print(publish(plan.paths.root, REFERENCE / options.publish, tasks, results))
        except ConfigError as error:
            print(error, file=sys.stderr)
            status = 1
    if finish and not status:
        finish(plan)
    _withdraw(options, plan, tasks)
    return status
