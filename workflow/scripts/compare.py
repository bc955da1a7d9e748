"""Test every method against the baseline and write the comparison."""

from distillbench.warm import call

call(
    "distillbench.reports:compare",
    {"runs": snakemake.input.runs, "outputs": dict(snakemake.output), **snakemake.params.compare},
    log=snakemake.log[0],
)
