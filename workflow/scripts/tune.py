"""Choose one method's hyper-parameters by trials."""

from distillbench.jobs.warm import call

execution = snakemake.config["execution"]
call(
    "distillbench.jobs.tune:tune",
    {
        "results": snakemake.config["results"],
        "sources": list(snakemake.params.code),
        "execution": execution,
        "file": snakemake.output.chosen,
        **snakemake.params.tuning,
    },
    log=snakemake.log[0],
    library=snakemake.params.tuning["run"]["backend"],
    warm=execution["warm_start"],
)
