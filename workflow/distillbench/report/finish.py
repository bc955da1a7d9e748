"""From records to tables, figures and page without Snakemake: what the rules at the end of the DAG do."""

from pathlib import Path

from distillbench.jobs import figures, tables
from distillbench.plan.plan import Plan
from distillbench.report.facts import facts_of
from distillbench.report.page import write_report


def finish(plan: Plan) -> Path:
    """Make everything that a plan's records end in, but for profiles; returns the folder of the tables.

    Raises RecordError naming every file of records that is missing or of another config.
    """
    root, compare = plan.paths.root, plan.config.compare
    made, drawn = root / "tables", root / "figures"
    runs, comparison = made / "runs.parquet", made / "comparison.parquet"
    profiles = [file for file in plan.profile_table() if Path(file).is_file()]
    tables.collect(plan.expected(), plan.skipped(), plan.methods, str(made / "runs.csv"), str(runs))
    outputs = {name: str(made / f"comparison.{name}") for name in ("csv", "parquet", "html", "tex")}
    outputs |= {"markdown": str(made / "comparison.md")}
    outputs |= {name: str(made / f"{name}.csv") for name in ("equivalence", "times", "across")}
    tables.compare(str(runs), outputs, plan.cards(), plan.tuning_files(), plan.remarks(), **compare.model_dump())
    tables.pareto(str(runs), profiles, str(made / "pareto.csv"))
    for dataset in plan.config.datasets:
        figures.dataset(
            str(runs), str(comparison), dataset, *_pictures(drawn / dataset), compare.baseline, compare.delta
        )
        figures.pareto(str(runs), profiles, dataset, *_pictures(drawn / f"pareto-{dataset}"), compare.baseline)
    for cell in plan.cells:
        where = _pictures(drawn / "curves" / "-".join(cell))
        figures.training(plan.shards_of(cell), cell.dataset, cell.backend, cell.pair, *where)
    wanted = {Path(file).name for file in plan.figure_files()}
    if "libraries.png" in wanted:
        figures.libraries(outputs["equivalence"], *_pictures(drawn / "libraries"))
    if "across.png" in wanted:
        figures.across(str(runs), *_pictures(drawn / "across"), compare.baseline, compare.alpha)
    write_report(root, facts_of(plan), root / "report" / "index.html")
    return made


def _pictures(stem: Path) -> tuple[str, str]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    return f"{stem}.png", f"{stem}.svg"
