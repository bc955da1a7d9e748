"""Write the page that is opened first."""

from distillbench.jobs.warm import call

call(
    "distillbench.report.page:write_report",
    {"results": snakemake.config["results"], "facts": snakemake.params.facts, "output": snakemake.output.html},
    log=snakemake.log[0],
    library="tables",
    warm=snakemake.config["execution"]["warm_start"],
)
