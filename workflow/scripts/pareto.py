"""Set what each method scores beside what it costs."""

from distillbench.jobs.warm import call

call(
    "distillbench.jobs.tables:pareto",
    {
        "runs": snakemake.input.runs,
        "profiles": list(snakemake.input.profiles),
        "csv": snakemake.output.csv,
    },
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
