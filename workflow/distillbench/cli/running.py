"""``distillbench run`` and ``plan``: a config, or the part of it that is asked for."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from distillbench.cli.names import CONFIG, config_file, names_of, several
from distillbench.config.config import ConfigError, read_config
from distillbench.config.yaml_files import copies_problem, read_values
from distillbench.params import TEACHER, suggestion
from distillbench.paths import home

if TYPE_CHECKING:
    from distillbench.plan.plan import Plan


def _seeds(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[int] | None:
    """Seeds and ranges of them, such as 0-9, by comma or given again."""
    found: set[int] = set()
    for text in (part for each in texts for part in each.split(",")):
        parts = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if not parts:
            raise click.BadParameter(f"{text!r} is neither a seed nor a range such as 0-9")
        first, last = int(parts[1]), int(parts[2] or parts[1])
        if last < first:
            raise click.BadParameter(f"{text!r} goes down: {last}-{first}")
        found |= set(range(first, last + 1))
    return sorted(found) or None


def _folder_name(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", text):
        raise click.BadParameter(f"{text!r} is not a name for a folder")
    return text


SELECTION = (
    CONFIG,
    several("method", "methods", "These methods only, and the baseline of the comparison; any of methods/."),
    several("dataset", "datasets", "These data sets only."),
    several("pair", "pairs", "These pairs of teacher and student only."),
    several("backend", "backends", "These libraries only: pyg, dgl, csr."),
    click.option(
        "--seeds", multiple=True, callback=_seeds, metavar="SEEDS", help="Such as 0-9, whatever the config says."
    ),
    click.option("--results", type=click.Path(path_type=Path), help="Folder of the results."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the config: a.b=1."),
)


def _selection(command: Any) -> Any:
    for option in reversed(SELECTION):
        command = option(command)
    return command


@click.command()
@_selection
@click.option("--cores", type=click.IntRange(1), help="Jobs at a time (default: all cores; without Snakemake one).")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would run, and run nothing.")
@click.option("--no-snakemake", is_flag=True, help="Train without Snakemake, as on a lent GPU.")
@click.option("--epochs", type=click.IntRange(1), help="Without Snakemake: a trial of so many; needs --results.")
@click.option(
    "--publish",
    callback=_folder_name,
    metavar="NAME",
    help="Without Snakemake: copy the records to results/reference/NAME.",
)
def run(
    config: str | None,
    *,
    settings: Sequence[str],
    cores: int | None,
    dry_run: bool,
    no_snakemake: bool,
    epochs: int | None,
    publish: str | None,
    **asked: Any,
) -> int:
    """Run a config, or a part of it, to its tables: by Snakemake, or without.

    CONFIG is a file, or the name of one in config/: smoke, paper-small (default: config/config.yaml).

    \b
    distillbench run --method kd --dataset digits --seeds 0-2
    distillbench run paper-small --cores 8

    Finished seeds are never trained again, whoever trained them.
    """
    file = config_file(config)
    if no_snakemake:
        if publish and epochs:
            raise click.UsageError("--publish: a trial (--epochs) is not a result")
        return _without_snakemake(file, settings, cores or 1, dry_run, epochs, publish, asked)
    for name, value in (("--epochs", epochs), ("--publish", publish)):
        if value:
            raise click.UsageError(f"{name}: goes with --no-snakemake")
    from distillbench.plan.plan import make_plan

    values, changed = narrowed(file, settings=settings, **asked)
    results = make_plan(values, [file], home()).paths.root  # what cannot run is said before anything is written
    if not changed:
        return _snakemake(file, cores, dry_run, results)
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            return _snakemake(_written(values, file, Path(folder)), cores, dry_run, results)
    if (results / "tables").is_dir():
        click.echo(f"{results}: its tables, figures and report will be of this part alone; all records stay", err=True)
    return _snakemake(_written(values, file, results), cores, dry_run, results)


def _without_snakemake(
    file: Path,
    settings: Sequence[str],
    cores: int,
    dry_run: bool,
    epochs: int | None,
    publish: str | None,
    asked: dict[str, Any],
) -> int:
    """Train here; and, where that is of a table's seeds and not the teachers alone, make the table."""
    from distillbench.jobs.run import run_jobs
    from distillbench.jobs.selection import Options

    how: dict[str, Any] = {"processes": cores, "list": dry_run, "epochs": epochs, "publish": publish}
    if read_values(file).get("export"):
        click.echo("export: copies are made by Snakemake alone, so there will be none", err=True)
    if TEACHER in asked["methods"] or epochs or not _from_0(asked["seeds"]):
        return run_jobs(Options(file, tuple(settings), **how, **asked))
    values, _ = narrowed(file, settings=settings, **asked)
    return run_jobs(Options(file, tuple(settings), **how), values, _finish)


def _finish(plan: "Plan") -> None:
    """The tables of what was trained, where what they are made with is installed."""
    try:
        from distillbench.report.finish import finish
    except ImportError as error:
        click.echo(f"No table is made: {error}. distillbench report makes it where that is installed.", err=True)
        return
    click.echo("\n" + (finish(plan) / "comparison.md").read_text(encoding="utf-8"), nl=False)


def _from_0(seeds: Sequence[int] | None) -> bool:
    """Whether seeds are those of a table: 0 and on."""
    return seeds is None or list(seeds) == list(range(len(seeds)))


def narrowed(
    file: Path,
    *,
    settings: Sequence[str] = (),
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    pairs: Sequence[str] = (),
    backends: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    results: Path | None = None,
) -> tuple[dict[str, Any], bool]:
    """The values of a config, cut down to what is asked for; and whether that changed anything.

    Raises ConfigError for names that the config does not have. A method may be any that there is a file of: it is run
    with its defaults then.
    """
    from distillbench.jobs.run import with_settings

    before = read_values(file)
    values = with_settings(read_values(file), settings)
    config = read_config(values, [file])  # what is cut below has the form of a config
    if datasets:
        values["datasets"] = _some("--dataset", values["datasets"], datasets)
    if pairs:
        _some("--pair", {name: None for entry in config.datasets.values() for name in entry.pairs}, pairs)
        values["datasets"] = {
            name: {**entry, "pairs": left}
            for name, entry in values["datasets"].items()
            if (left := {key: pair for key, pair in entry["pairs"].items() if key in pairs})
        }
    if methods:
        every = {**dict.fromkeys(names_of("methods", config.plugins)), **values["methods"]}
        baseline = [config.compare.baseline] if config.compare.baseline in every else []
        values["methods"] = _some("--method", every, [*baseline, *methods])
        for entry in values["datasets"].values():
            for pair in entry["pairs"].values():
                if pair.get("methods"):
                    pair["methods"] = [name for name in values["methods"] if name in (*pair["methods"], *methods)]
    if backends:
        values["backends"] = list(backends)
    if seeds:
        if not _from_0(seeds):
            raise ConfigError(
                f"--seeds: tables are of the seeds from 0 on, such as 0-{max(seeds)}; "
                "some of them alone are trained with --no-snakemake"
            )
        values["seeds"] = len(seeds)
    if results:
        values["results"] = str(results)
    return values, values != before


def _some(option: str, known: dict[str, Any], asked: Sequence[str]) -> dict[str, Any]:
    for name in asked:
        if name not in known:
            raise ConfigError(f"{option}: unknown {name!r}{suggestion(name, known)}")
    return {name: known[name] for name in dict.fromkeys(asked)}


def _written(values: dict[str, Any], file: Path, folder: Path) -> Path:
    """The file of the config that is run: it stays with its results, as what they are of."""
    from distillbench.record import write_atomically

    target = folder / "config.yaml"
    write_atomically(
        target, f"# {file}, as `distillbench run` was asked for it\n{yaml.safe_dump(values, sort_keys=False)}"
    )
    return target


def _snakemake(config: Path, cores: int | None, dry_run: bool, results: Path) -> int:
    """Snakemake on a config, here; then where its results are."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(home() / "Snakefile"), "--configfile", str(config)]
    command += ["--cores", str(cores or "all"), "--directory", str(Path.cwd())]
    command += ["--dry-run"] if dry_run else []
    if not (Path("profiles/default/config.yaml").is_file() or "SNAKEMAKE_PROFILE" in os.environ):
        command += ["--workflow-profile", str(home() / "profiles" / "default")]
    click.echo(shlex.join(command), err=True)
    status = subprocess.run(command, check=False).returncode  # nosec B603: our own arguments
    table = results / "tables" / "comparison.md"
    if status == 0 and not dry_run:
        for what, where in (
            ("Report", "report/index.html"), ("Table", "tables/comparison.html  (.md, .tex, .csv, .parquet)"),
            ("Runs", "tables/runs.csv"), ("Profiles", "tables/profiles.csv"), ("Figures", "figures/*.png"),
        ):  # fmt: skip
            if what != "Profiles" or (results / where).is_file():
                click.echo(f"{what + ':':12}{results}/{where}")
        click.echo(f"MLflow:     distillbench ui --results {shlex.quote(str(results))}")
        if table.is_file():
            click.echo("\n" + table.read_text(encoding="utf-8"), nl=False)
    return status


@click.command()
@_selection
def plan(config: str | None, *, settings: Sequence[str], **asked: Any) -> int:
    """Say what a config would run, how long that took elsewhere, and which comparisons could conclude nothing."""
    from distillbench.plan.forecast import forecast
    from distillbench.plan.plan import make_plan
    from distillbench.statistics.power import limits

    file = config_file(config)
    values, _ = narrowed(file, settings=settings, **asked)
    planned = make_plan(values, [file], home())
    if problem := copies_problem(planned.config.export):
        raise ConfigError(f"{file}:\n  {problem}")
    click.echo(forecast(planned, [Path("results/reference"), home() / "results/reference"]))
    click.echo("\n" + "\n".join(limits(planned)))
    return 0


COMMANDS = (run, plan)
