"""Start-up and DAG: where the wall time of a run goes, and what large grids cost.

Runs the default config in a folder of its own (13 minutes on two cores) and says what each core did; plans 1,000 cells;
gathers, compares and syncs to MLflow 10,000 records (synthetic_records). Each figure is of a process of its own, from
its start to its end, with the peak of its resident memory.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.steps import ROOT, markdown
from benchmarks.synthetic_records import grid_of, write_results
from benchmarks.timeline import ASKED_FOR, core_seconds, overhead, read_jobs
from distillbench.plan.plan import make_plan

CORES = 2
METHODS = ("supervised", "kd", "fitnet", "at", "lsp")
CONFIG = ROOT / "config/config.yaml"
SHARE, DRY_RUN, TABLES, SYNC = 0.15, 20.0, 60.0, 600.0  # at most: of the core-seconds; seconds
# between this process and the one that is measured: Linux has a process start with the peak of the one that made it
LAUNCHER = """
import resource, subprocess, sys, time
begun = time.monotonic()
status = subprocess.call(sys.argv[1:])
seconds = time.monotonic() - begun
if status:
    sys.exit(status)
print(f"\\n{seconds} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
"""
OF_RUN = """\
A run of W seconds on C cores has W × C core-seconds. A job holds one core from the start of its process to its end, a
profile all cores; what it did with them is what the last line of its log says. What no job held is idle. A second in
which another process had the core, Snakemake's own among them, counts as what the job did then. Training and
evaluation: from the split of a seed to its test score, the latter on validation and on the test part. Profiling: a
profile's job but for the start of its process, imports before its passes and the pause in which it watches the machine;
each pass, in a process of its own, reads the data. All else is overhead, idle cores included.
"""
OF_GRIDS = """\
A cell is a data set, a pair and a library; six models (teacher, five students) are trained in each, with ten seeds: in
one job where there are a thousand models, else in two. The records of the large grid are synthetic in their scores and
complete in their form, with histories of 50 to 150 epochs. Each figure is of a process of its own, with its start and
its imports.
"""
HEADER = ["what", "seconds", "peak memory, MB", "at most, s", "reached"]


class Measured(NamedTuple):
    """A process: its wall time, the largest resident memory it or a child of it had, and what it printed."""

    seconds: float
    megabytes: float
    output: str


def measured(command: Sequence[str], folder: Path) -> Measured:
    """Run a command in ``folder``. Raises SystemExit with what it printed where it fails."""
    done = subprocess.run(  # commands of this module  # nosec B603
        [sys.executable, "-S", "-c", LAUNCHER, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        text=True,
    )
    output, _, last = done.stdout.removesuffix("\n").rpartition("\n")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    seconds, kilobytes = last.split()
    return Measured(float(seconds), 1024 * int(kilobytes) / 1e6, output)


def _environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "workflow"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def snakemake(config: Path, folder: Path, *arguments: str) -> Measured:
    """Run Snakemake on a config in a folder of its own."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return measured([*command, "--cores", str(CORES), "--configfile", str(config.resolve()), *arguments], folder)


def wall_time(logs: Path, began: float, ended: float, title: str) -> str:
    """Where the time of a run went, as a table; see timeline."""
    jobs = read_jobs(logs, CORES, began, ended)
    if not jobs:
        raise SystemExit(f"{logs}: no log of a job that ran at that time and says where its time went")
    spent = core_seconds(jobs, CORES, began, ended)
    total = sum(spent.values())
    ordered = [*(name for name in ASKED_FOR if name in spent), *(name for name in spent if name not in ASKED_FOR)]
    rows = [[name, f"{spent[name]:.1f}", f"{100 * spent[name] / total:.1f}%"] for name in ordered]
    rows.append([f"all: {ended - began:.1f} s × {CORES} cores", f"{total:.1f}", "100%"])
    share = overhead(spent)
    reached = "yes" if share <= SHARE else "**no**"
    return "\n".join(
        [
            f"{title}: {len(jobs)} jobs, {ended - began:.0f} s. Neither training, nor evaluation, nor profiling: "
            f"**{100 * share:.1f}%** of the core-seconds (at most {100 * SHARE:.0f}%: {reached}).",
            "",
            markdown(["where each core's time went", "core-seconds", "share"], rows),
        ]
    )


def dry_runs(folder: Path, cells: int) -> list[list[str]]:
    """Plan ``cells`` cells (data set × library × pair); and fewer, with as many rows in the table of comparisons.

    Ten seeds of each of these rows are the records of ``large_results``.
    """
    datasets = 10
    whole, part = (math.ceil(n / (2 * datasets)) for n in (cells, cells / (1 + len(METHODS))))
    rows = []
    for pairs, target in ((whole, DRY_RUN), (part, DRY_RUN)):
        config = grid_of(folder / "planned", datasets=datasets, pairs=pairs, methods=METHODS)
        file = _written(config, folder / f"plan-{pairs}.yaml")
        found = snakemake(file, folder, "--dry-run", "--quiet", "rules")
        jobs = re.search(r"^total\s+(\d+)$", found.output, re.MULTILINE)
        number = 2 * datasets * pairs
        rows.append(
            _row(
                f"`snakemake -n`: {number:,} cells × {1 + len(METHODS)} models, {int(jobs[1]) if jobs else 0:,} jobs",
                found,
                target,
            )
        )
    return rows


def large_results(folder: Path, records: int) -> list[list[str]]:
    """Tables and MLflow of ``records`` records: 5 models × 10 seeds in each of the cells of 10 data sets."""
    methods = METHODS[:4]
    datasets = min(10, records // 100)
    pairs = records // (datasets * 2 * (1 + len(methods)) * 10)
    file = folder / "records.yaml"
    plan = write_results(grid_of(folder / "records", datasets=datasets, pairs=pairs, methods=methods), file)
    python = [sys.executable, "-c", "import sys; from benchmarks.dag import *; globals()[sys.argv[1]](sys.argv[2])"]
    collected, compared = (measured([*python, name, str(file)], folder) for name in ("collect", "compare"))
    both = Measured(collected.seconds + compared.seconds, max(collected.megabytes, compared.megabytes), "")
    sync = [sys.executable, "-m", "distillbench", "sync", "--results", str(plan.paths.root)]
    first, again = measured(sync, folder), measured(sync, folder)
    return [
        _row(f"collect, {plan.runs:,} records", collected, None),
        _row(f"compare, {plan.runs:,} records in {len(plan.cells):,} cells", compared, None),
        _row("collect + compare", both, TABLES),
        _row(f"sync of {plan.runs:,} records to a fresh MLflow store", first, SYNC),
        _row("sync with nothing new", again, None),
    ]


def collect(file: str) -> None:
    """What the rule ``collect`` does, for the config in ``file``."""
    from distillbench.jobs import tables as reports

    plan = make_plan(yaml.safe_load(Path(file).read_text()), [file], ROOT)
    tables = plan.paths.root / "tables"
    tables.mkdir(exist_ok=True)
    names = (str(tables / name) for name in ("runs.csv", "runs.parquet", "rows.npz"))
    reports.collect(plan.expected(), plan.skipped(), plan.methods, *names)


def compare(file: str) -> None:
    """What the rule ``compare`` does, for the config in ``file``."""
    from distillbench.jobs import tables as reports

    plan = make_plan(yaml.safe_load(Path(file).read_text()), [file], ROOT)
    tables = plan.paths.root / "tables"
    outputs = {name: str(tables / f"comparison.{name}") for name in ("csv", "parquet", "html", "tex")}
    outputs |= {"markdown": str(tables / "comparison.md")}
    outputs |= {name: str(tables / f"{name}.csv") for name in ("equivalence", "times", "across")}
    options = plan.config.compare.model_dump()
    reports.compare(str(tables / "runs.parquet"), outputs, plan.cards(), [], plan.remarks(), **options)


def default_run(folder: Path, config: Path) -> str:
    """Run a config in ``folder`` and say where its time went."""
    began = time.time()
    snakemake(config, folder)
    ended = time.time()
    results = yaml.safe_load(config.read_text(encoding="utf-8")).get("results", "results")
    return wall_time(folder / results / "logs", began, ended, f"`{config.resolve().relative_to(ROOT)}`")


def run_section(folder: Path | None, config: Path = CONFIG) -> str:
    """Run a config, in ``folder`` (which is kept, and has to be new) or in one that is not, and where its time went."""
    if folder is not None:
        folder.mkdir(parents=True)
        table = default_run(folder.resolve(), config)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            table = default_run(Path(scratch), config)
    return "\n\n".join(["## Where the wall time of a run goes", table, OF_RUN])


def grids_section(cells: int = 1000, records: int = 10_000) -> str:
    """What large grids cost. A quarter of an hour on two cores with nothing beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        return "\n\n".join(["## Large grids", grids(Path(scratch), cells, records), OF_GRIDS])


def grids(folder: Path, cells: int, records: int) -> str:
    """The costs of large grids, as a table."""
    return markdown(HEADER, [*dry_runs(folder, cells), *large_results(folder, records)])


def _row(what: str, found: Measured, target: float | None) -> list[str]:
    reached = "–" if target is None else "yes" if found.seconds <= target else "**no**"
    limit = "–" if target is None else f"{target:g}"
    return [what, f"{found.seconds:.1f}", f"{found.megabytes:.0f}", limit, reached]


def _written(config: dict[str, object], file: Path) -> Path:
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file
