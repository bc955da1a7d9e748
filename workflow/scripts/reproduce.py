"""Set the runs beside published results."""

from distillbench.jobs.warm import call

call(
    "distillbench.jobs.reproduce:reproduce",
    {
        "runs": snakemake.input.runs,
        "cards": list(snakemake.input.cards),
        "pairs": snakemake.params.pairs,
        "outputs": dict(snakemake.output),
    },
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
