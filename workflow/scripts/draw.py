"""Draw one figure."""

from distillbench.jobs.warm import call

call(
    snakemake.params.draw,
    {**snakemake.params.arguments, "png": snakemake.output.png, "svg": snakemake.output.svg},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
