# distillbench: teachers -> students of every method -> PyG and DGL -> paired seeds -> MLflow -> tested tables.
# What runs is in config/, how it runs in profiles/. `snakemake --cores 8` runs config/config.yaml.
from snakemake.utils import min_version

min_version("9.0")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teacher.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/distill.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/reproduce.smk"
include: "workflow/rules/structure.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/track.smk"
include: "workflow/rules/export.smk"


rule all:
    default_target: True
    input:
        PLAN.shard_files(),
        PLAN.profile_files(),
        PRODUCTS,
        f"{RESULTS}/mlflow/synced.json",
        COPIES,
