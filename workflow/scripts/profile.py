"""Measure a teacher and a student, one after the other, with nothing beside them."""

from distillbench.jobs.warm import call

call(
    "distillbench.profiling.profile:profile_pair",
    {
        "results": snakemake.config["results"],
        "params": snakemake.params.run,
        "threads": snakemake.threads,
        "outputs": {"teacher": snakemake.output.teacher, "student": snakemake.output.student},
    },
    log=snakemake.log[0],
    library=snakemake.wildcards.backend,
    warm=snakemake.config["execution"]["warm_start"],
)
