"""Gather all trials into one table."""

from distillbench.jobs.warm import call

call(
    "distillbench.tables.tuning:tuning_table",
    {"files": list(snakemake.input.chosen), "csv": snakemake.output.csv},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
