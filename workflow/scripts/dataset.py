"""Write one data set into results/data/."""

from distillbench.jobs.warm import call

call(
    "distillbench.jobs.data:prepare_data",
    {"results": snakemake.config["results"], "file": snakemake.input.plugin, **snakemake.params.data},
    log=snakemake.log[0],
    # one that is installed, if any: torch comes with it, and the teachers that follow need it
    library=next(iter(snakemake.config["libraries"]), None),
    warm=snakemake.config["execution"]["warm_start"],
)
