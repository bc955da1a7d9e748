"""Gather all profiles into one table."""

from distillbench.jobs.warm import call

call(
    "distillbench.jobs.tables:collect_profiles",
    {"profiles": list(snakemake.input.profiles), "csv": snakemake.output.csv},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
