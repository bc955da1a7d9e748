"""Write one data set into results/data/."""

from distillbench.warm import call

call(
    "distillbench.jobs:prepare_data",
    {"results": snakemake.config["results"], "file": snakemake.input.plugin, **snakemake.params.data},
    log=snakemake.log[0],
    library=snakemake.config["libraries"][0],  # torch comes with it, and the teachers that follow need it
    warm=snakemake.config["execution"]["warm_start"],
)
