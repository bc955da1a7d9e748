"""``distillbench ui``, ``sync``, ``server``, ``power``, ``score``, ``report`` and ``publish``: what is done with
results."""

import json
import math
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from distillbench.cli.names import CONFIG, config_file
from distillbench.config.yaml_files import read_values
from distillbench.paths import home
from distillbench.record import RecordError

RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=None, help="Folder of the results (default: the config's)."
)


def _of_config(config: str | None, results: Path | None) -> Path:
    """The folder of results that is named, or the config's as the program reads it."""
    if results:
        return results.expanduser()
    values = read_values(config_file(config)) if config or Path("config/config.yaml").is_file() else {}
    return Path(str(values.get("results") or "results")).expanduser()


@click.command()
@CONFIG
@RESULTS
@click.option("--port", type=int, default=5000, show_default=True, help="On 127.0.0.1.")
def ui(config: str | None, results: Path | None, port: int) -> int:
    """Show all runs in MLflow, in the browser."""
    from distillbench.tracking.store import TrackingError
    from distillbench.tracking.sync import ui

    try:
        ui(_of_config(config, results), port)
    except TrackingError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@CONFIG
@RESULTS
@click.option("--uri", help="Tracking URI of a server or database (default: RESULTS/mlflow/mlflow.db).")
@click.option("--prefix", default="", help="Before the names of experiments, where others share the server.")
@click.option("--take-over", is_flag=True, help="Write into experiments of another results folder, too.")
def sync(config: str | None, results: Path | None, uri: str | None, prefix: str, take_over: bool) -> int:
    """Bring MLflow up to date with the records, also while a long run goes on."""
    from distillbench.tracking.store import TrackingError
    from distillbench.tracking.sync import sync

    def progress(done: int, total: int, run: str) -> None:
        if done % 50 == 0 or done == total:
            click.echo(f"MLflow: {done} of {total} runs written, last {run}")

    try:
        report = sync(_of_config(config, results), uri, prefix=prefix, take_over=take_over, progress=progress)
    except TrackingError as error:
        raise click.ClickException(str(error)) from error
    for problem in report.problems:
        click.echo(f"problem: {problem}", err=True)
    click.echo(
        f"MLflow: {report.added} runs added, {report.replaced} replaced, {report.skipped} up to date, "
        f"{len(report.problems)} problems"
    )
    return 1 if report.problems else 0


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("results/tracking-server"), show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=5000, show_default=True)
@click.option("--allowed-hosts", help="Names that the server answers to, by comma; beyond this machine needed.")
@click.option("--new-password", is_flag=True, help="Make a new password for admin, with this start.")
def server(folder: Path, host: str, port: int, allowed_hosts: str | None, new_password: bool) -> int:
    """Start MLflow for a team: on PostgreSQL, with passwords."""
    from distillbench.tracking.server import serve_until_ended
    from distillbench.tracking.store import TrackingError

    try:
        return serve_until_ended(folder, host, port, allowed_hosts, new_password)
    except TrackingError as error:
        raise click.ClickException(str(error)) from error


def _share(_: click.Context, __: click.Parameter, value: float) -> float:
    if not 0 < value < 1:
        raise click.BadParameter(f"{value:g} is not between 0 and 1")
    return value


def _counts(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[int, ...]:
    parts = [part for text in texts for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or int(part) == 0:
            raise click.BadParameter(f"{part!r} is not a whole number above 0")
    return tuple(map(int, parts))


def _positive(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is not above 0")
    return value


@click.command()
@CONFIG
@RESULTS
@click.option(
    "--alpha", type=float, default=0.05, callback=_share, show_default=True,
    help="With --std: level of the tests of all methods together.",
)  # fmt: skip
@click.option(
    "--power", type=float, default=0.8, callback=_share, show_default=True, help="With --std: wanted probability."
)
@click.option("--csv", type=click.Path(path_type=Path), help="Write the table of the runs there, in fractions.")
@click.option(
    "--std", type=float, callback=_positive, help="Plan without runs: std of the paired differences, a fraction."
)
@click.option("--methods", type=click.IntRange(1), help="With --std: methods compared with the baseline.")
@click.option("--seeds", multiple=True, callback=_counts, metavar="N", help="With --std: numbers of seeds: 5,10,20.")
def power(
    config: str | None,
    results: Path | None,
    alpha: float,
    power: float,
    csv: Path | None,
    std: float | None,
    methods: int | None,
    seeds: tuple[int, ...],
) -> int:
    """Say what the finished seeds could have shown, or so many could, before there are any.

    \b
    distillbench power
    distillbench power --std 0.01 --methods 5 --seeds 5,10,20      before there are any
    """
    from distillbench.record import write_atomically
    from distillbench.runs import read_parquet
    from distillbench.tables.power import plan_text, power_table, power_text

    if alpha >= power:
        raise click.UsageError(f"--power: {power:g} is not above --alpha ({alpha:g})")
    planning = [std is not None, methods is not None, bool(seeds)]
    if any(planning) and not all(planning):
        raise click.UsageError("--std, --methods and --seeds go together: they plan without runs")
    if std is not None and methods is not None:
        if csv:
            raise click.UsageError("--csv: is for runs, not with --std")
        click.echo(plan_text(std, methods, seeds, alpha, power))
        return 0
    folder = _of_config(config, results)
    path = folder / "tables" / "comparison.parquet"
    if not path.exists():
        raise click.ClickException(f"no comparison at {path}: run first, or name another folder with --results")
    try:
        table = power_table(read_parquet(path))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if table.empty:
        raise click.ClickException(f"{folder}: no student was run but the baseline")
    if csv:
        write_atomically(csv, table.to_csv(index=False))
    click.echo(power_text(table))
    return 0


def _metrics(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from distillbench.tables.score import KNOWN

    found = [CompletionItem(name) for name in KNOWN if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("metric", shell_complete=_metrics)
@CONFIG
@RESULTS
def score(metric: str, config: str | None, results: Path | None) -> int:
    """Compute a metric from what finished runs predicted on their test part; nothing is trained.

    METRIC is accuracy, balanced_accuracy, mean_class_accuracy, micro_f1, macro_f1, roc_auc, nll, ece, agreement (with
    the teacher), or FILE.py:function, an f(y_true, y_pred, scores) -> float of your own.

    \b
    distillbench score macro_f1
    distillbench score my_metrics.py:cohen_kappa paper-small

    Of every run of the folder; a row each is written to tables/score-METRIC.csv there.
    """
    from distillbench.runs import write_csv
    from distillbench.tables.score import score_table, score_text

    folder = _of_config(config, results)
    try:
        table = score_table(folder, metric)
    except RecordError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if table.empty:
        raise click.ClickException(f"no finished run in {folder}: name another folder with --results")
    name = metric.rpartition(":")[2]
    write_csv(table, folder / "tables" / f"score-{name}.csv")
    click.echo(f"{score_text(table, name)}\n\n{folder / 'tables' / f'score-{name}.csv'}")
    return 0


@click.command()
@CONFIG
@RESULTS
def report(config: str | None, results: Path | None) -> int:
    """Make tables, figures and the page from the records that there are; nothing is trained."""
    from distillbench.plan.plan import make_plan
    from distillbench.report.finish import finish

    file = config_file(config)
    values = read_values(file) | ({"results": str(results)} if results else {})
    made = finish(make_plan(values, [file], home()))
    click.echo((made / "comparison.md").read_text(encoding="utf-8"), nl=False)
    click.echo(f"\n{made.parent / 'report' / 'index.html'}")
    return 0


@click.command()
@CONFIG
@RESULTS
@click.option("--name", default="default", show_default=True, help="Folder below results/reference.")
@click.option(
    "--document",
    type=click.Path(path_type=Path),
    default=Path("README.md"),
    show_default=True,
    help="With the <!-- results --> marks.",
)
@click.option("--elapsed", help="Wall time h:mm:ss (default: of the newest Snakemake log).")
@click.option("--again", is_flag=True, help="Draw what is published under --name anew, by the statistics of today.")
def publish(
    config: str | None, results: Path | None, name: str, document: Path, elapsed: str | None, again: bool
) -> int:
    """Publish a finished run: copy its tables and figures with their provenance, and put them into a document.

    \b
    distillbench publish paper-small --name paper-small --document docs/paper.md
    distillbench publish standard-cora --again --name standard-cora --document docs/standard.md
    """
    from distillbench.report import publish as publishing

    file = config_file(config)
    if again:
        publishing.again(file, name, document)
        return 0
    facts = publishing.publish(_of_config(config, results), file, name, elapsed or publishing.elapsed_time(), document)
    click.echo(json.dumps({key: facts[key] for key in ("wall_seconds", "core_seconds", "runs")}, indent=1))
    return 0


COMMANDS = (ui, sync, server, power, score, report, publish)
