"""Gather all records into one table of runs."""

from distillbench.jobs.warm import call

call(
    "distillbench.jobs.tables:collect",
    {
        "expected": snakemake.params.expected,
        "skipped": snakemake.params.skipped,
        "methods": snakemake.params.order,
        "csv": snakemake.output.csv,
        "parquet": snakemake.output.parquet,
        "rows": snakemake.output.rows,
    },
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
