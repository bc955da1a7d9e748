"""Gather all profiles into one table."""

from distillbench.warm import call

call(
    "distillbench.reports:collect_profiles",
    {"profiles": list(snakemake.input.profiles), "csv": snakemake.output.csv},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
