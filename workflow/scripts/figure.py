"""Draw one data set's figure."""

from distillbench.warm import call

call(
    "distillbench.reports:figure",
    {
        "runs": snakemake.input.runs,
        "comparison": snakemake.input.comparison,
        "dataset": snakemake.wildcards.dataset,
        "png": snakemake.output.png,
        "svg": snakemake.output.svg,
        "baseline": snakemake.params.baseline,
    },
    log=snakemake.log[0],
)
