"""Test every method against the baseline and write the comparison."""

from distillbench.jobs.warm import call

call(
    "distillbench.jobs.tables:compare",
    {
        "runs": snakemake.input.runs,
        "rows": snakemake.input.rows,
        "cards": list(snakemake.input.cards),
        "tuning": list(snakemake.input.tuning),
        "outputs": dict(snakemake.output),
        "protocols": snakemake.params.protocols,
        **snakemake.params.compare,
    },
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
