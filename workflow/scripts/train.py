"""Train the seeds of one shard: teachers, or one method's students."""

from distillbench.jobs.warm import call

execution = snakemake.config["execution"]
call(
    "distillbench.jobs.train:train",
    {
        "results": snakemake.config["results"],
        "shard": int(snakemake.wildcards.get("shard", 0)),  # tuning has one
        "params": snakemake.params.run,
        "sources": list(snakemake.params.code),
        "execution": execution,
        "planned_runs": snakemake.config["planned_runs"],
    },
    log=snakemake.log[0],
    library=snakemake.wildcards.backend,
    warm=execution["warm_start"],
)
