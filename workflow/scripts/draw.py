"""Draw one figure."""

from distillbench.jobs.warm import call

call(
    f"distillbench.jobs.figures:{snakemake.params.what}",
    {**snakemake.params.arguments, "png": snakemake.output.png, "svg": snakemake.output.svg},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
