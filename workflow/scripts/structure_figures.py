"""Draw the structure of the feature space of one cell's teacher and students."""

from distillbench.jobs.warm import call

call(
    "distillbench.figures.structure:structure_figure",
    {
        "results": snakemake.config["results"],
        "records": list(snakemake.input.records),
        "params": snakemake.params.figure,
        "png": snakemake.output.png,
        "svg": snakemake.output.svg,
    },
    log=snakemake.log[0],
    library=snakemake.wildcards.backend,
    warm=snakemake.config["execution"]["warm_start"],
)
