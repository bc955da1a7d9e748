"""From records to tables, figures and page without Snakemake: what the rules at the end of the DAG do."""

from pathlib import Path

from distillbench.jobs import tables
from distillbench.jobs.reproduce import reproduce
from distillbench.plan.figures import pictures_of
from distillbench.plan.plan import Plan
from distillbench.record import RecordError
from distillbench.report.facts import facts_of
from distillbench.report.page import write_report
from distillbench.tables.tuning import tuning_table


def finish(plan: Plan) -> Path:
    """Make everything that a plan's records end in, but for profiles; returns the folder of the tables.

    Raises RecordError naming every file of records that is missing or of another config.
    """
    root, compare = plan.paths.root, plan.config.compare
    if missing := [file for file in plan.shard_files() if not Path(file).is_file()]:
        number = f"{len(missing)} of {len(plan.shard_files())} files of records are missing"
        raise RecordError(f"{number}, such as {missing[0]}: distillbench run makes them")
    made = root / "tables"
    runs, rows = made / "runs.parquet", made / "rows.npz"
    profiles = [file for file in plan.profile_table() if Path(file).is_file()]
    tables.collect(plan.expected(), plan.skipped(), plan.methods, str(made / "runs.csv"), str(runs), str(rows))
    outputs = {name: str(made / f"comparison.{name}") for name in ("csv", "parquet", "html", "tex")}
    outputs |= {"markdown": str(made / "comparison.md")}
    outputs |= {name: str(made / f"{name}.csv") for name in ("equivalence", "times", "across")}
    named = (plan.cards(), plan.tuning_files(), plan.remarks())
    tables.compare(str(runs), outputs, *named, **compare.model_dump(), rows=str(rows))
    tables.pareto(str(runs), profiles, str(made / "pareto.csv"))
    for figure, place in pictures_of(plan.cells):
        inputs = figure.drawn_from(plan, place)
        if "profiles" in inputs:
            inputs["profiles"] = profiles
        figure.draw(inputs, place, figure.settings(plan), root / "figures")
    if plan.config.tune:
        tuning_table(plan.tuning_files(), str(made / "tuning.csv"))
    if published := plan.published_pairs():
        outputs = {"csv": "csv", "html": "html", "markdown": "md"}
        files = {name: str(made / f"reproduction.{ending}") for name, ending in outputs.items()}
        reproduce(str(runs), plan.cards(), published, files)
    facts = facts_of(plan)
    # drawn by a rule of its own, so what is there may be of another run
    facts["shown"] = [file for file in facts["shown"] if "figures/structure" not in file]
    write_report(root, facts, root / "report" / "index.html")
    return made
