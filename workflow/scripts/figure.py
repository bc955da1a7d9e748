"""Draw one data set's figure."""

from distillbench.warm import call

call(
    "distillbench.reports:figure",
    {
        "runs": snakemake.input.runs,
        "dataset": snakemake.wildcards.dataset,
        "png": snakemake.output.png,
        "svg": snakemake.output.svg,
        **snakemake.params.compare,
    },
    log=snakemake.log[0],
)
