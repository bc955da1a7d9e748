"""Gather all trials into one table."""

from distillbench.warm import call

call(
    "distillbench.tuning_table:tuning_table",
    {"files": list(snakemake.input.chosen), "csv": snakemake.output.csv},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
