# From the config to the plan: what there is to run, and where it goes. No rules here.
import csv
import gc
import os
import sys

from snakemake.exceptions import WorkflowError

from distillbench.config.config import ConfigError, name_files
from distillbench.config.yaml_files import copies_problem
from distillbench.plan.figures import figure_files
from distillbench.paths import Cell
from distillbench.plan.plan import make_plan
from distillbench.jobs.warm import owner

# Jobs may be forked from a process that belongs to this Snakemake process (distillbench.jobs.warm). A job of a batch
# system has one of its own: what it forked from another's would not be counted as its time and memory.
if workflow.remote_exec:
    os.environ.update(DISTILLBENCH_OWNER=owner())
os.environ.setdefault("DISTILLBENCH_OWNER", owner())

# a large DAG is made of millions of objects that stay: Python need not look through all of them again and again
gc.set_threshold(200_000, 20, 100)

# seeds' records, weights and teachers' outputs are not declared outputs: no storage plugin would carry them to other jobs
if provider := workflow.storage_settings.default_storage_provider:
    sys.exit(
        f"\n--default-storage-provider {provider!r}: results cannot be on object storage, as jobs exchange files in"
        " the results folder. Run on a shared volume; `export` in the config copies tables, figures and report:"
        " docs/cluster.md, Object storage.\n"
    )

# Snakemake adds what --config says to the config's file; of methods and data sets it names all that are meant
for name in ("methods", "datasets"):
    if name in (workflow.config_settings.config or {}):
        config[name] = workflow.config_settings.config[name]

CONFIG_FILES = workflow.overwrite_configfiles or ["config/config.yaml"]

try:
    PLAN = make_plan(config, CONFIG_FILES, Path(workflow.basedir))
    # a job on another machine plans as well, but copies are made by the process that submits it
    if not workflow.remote_exec and (problem := copies_problem(PLAN.config.export)):
        raise ConfigError(f"{name_files(CONFIG_FILES)}:\n  {problem}")
except ConfigError as error:
    sys.exit(f"\nThe config cannot run.\n{error}\n")

# what no outcome of these runs would show is said before anything trains
if any(re.fullmatch(r"--dry-?run|-[a-zA-Z]*n[a-zA-Z]*", word) for word in sys.argv):
    from distillbench.statistics.power import limits

    print(*limits(PLAN), sep="\n", file=sys.stderr)

RESULTS = str(PLAN.paths.root)
config.update(
    results=RESULTS,
    execution=PLAN.config.execution.model_dump(),
    libraries=[name for name in PLAN.config.backends if name not in PLAN.missing],
    planned_runs=PLAN.runs,
)


wildcard_constraints:
    dataset="|".join(map(re.escape, PLAN.config.datasets)),
    backend="|".join(PLAN.config.backends),
    pair="|".join(
        sorted(
            {
                re.escape(cell.pair)
                for cell in [*PLAN.all_cells, *PLAN.further_teachers()]
            }
        )
    ),
    method="|".join(map(re.escape, PLAN.methods)),
    shard=r"\d+",


def all_cores():
    """What `--cores` gives; `snakemake --report` runs nothing and is not given any."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


def cell_of(wildcards):
    return Cell(wildcards.dataset, wildcards.backend, wildcards.pair)


def teacher_params(wildcards):
    return PLAN.teacher_params(cell_of(wildcards), int(wildcards.shard))


def student_params(wildcards):
    return PLAN.student_params(
        cell_of(wildcards), wildcards.method, int(wildcards.shard)
    )


# What a job asks of a batch system (distillbench.plan.resources); a retry asks for more.
def asks(demand, gpus=True):
    """Resources of a rule whose jobs demand what this function of their wildcards gives, GPUs only where any may want one."""

    def of(name):
        return lambda wildcards, attempt: getattr(demand(wildcards).at(attempt), name)

    found = {"mem_mb": of("memory_mb"), "runtime": of("minutes")}
    # Snakemake calls each of them for each job
    return found | ({"gpu": of("gpus")} if gpus and PLAN.asks_for_gpus else {})


def demand_of_shard(wildcards):
    runs = len(PLAN.seeds(int(wildcards.shard)))
    return PLAN.demand(cell_of(wildcards), runs)


def minutes(each):
    """Wall time of the jobs of a rule that trains nothing."""
    return lambda wildcards, attempt: each * attempt


# In the rules that have jobs in every cell, the files that a result depends on are a parameter, by content, and only the
# method's own is an input: Snakemake handles each input of each job, and a thousand cells have ten thousand jobs with
# twenty such files each.
def method_files(wildcards):
    return PLAN.method_sources(wildcards.method)


def teacher_code(wildcards):
    return PLAN.contents(PLAN.teacher_sources(cell_of(wildcards)))


def student_code(wildcards):
    return PLAN.contents(PLAN.student_sources(cell_of(wildcards), wildcards.method))


def profile_code(wildcards):
    return PLAN.contents(PLAN.profile_sources(cell_of(wildcards)))


def teachers_of(wildcards):
    """The teachers of the same seeds that the method needs, if any."""
    cells = PLAN.teachers_of(cell_of(wildcards), wildcards.method)
    return [
        str(PLAN.paths.shard(cell, "teacher", int(wildcards.shard))) for cell in cells
    ]


def tuned_cell(wildcards):
    return PLAN.tuned_cell(wildcards.dataset, wildcards.pair)


def tuning_code(wildcards):
    return PLAN.contents(PLAN.tuning_sources(tuned_cell(wildcards), wildcards.method))


def tuning_teachers_of(wildcards):
    """The teachers of the trials' seeds that the method needs, if any."""
    cells = PLAN.teachers_of(tuned_cell(wildcards), wildcards.method)
    return [str(PLAN.paths.tuning_runs.shard(cell, "teacher", 0)) for cell in cells]


def chosen_values(wildcards):
    """The hyper-parameters chosen for the method, where the config tunes."""
    if not PLAN.config.tune:
        return []
    return str(PLAN.paths.tuning(wildcards.dataset, wildcards.pair, wildcards.method))


# What a run ends in, and its copies on object storage, if the config asks for any (export.smk)
PRODUCTS = [
    *PLAN.table_files(),
    *figure_files(PLAN),
    f"{RESULTS}/report/index.html",
]


def copies_of_products():
    if not (folder := PLAN.config.export):
        return []
    names = [os.path.relpath(file, RESULTS) for file in PRODUCTS]
    try:
        return storage([f"{folder.rstrip('/')}/{name}" for name in names])
    except WorkflowError as error:
        sys.exit(
            f"\nThe config cannot run.\n{name_files(CONFIG_FILES)}:\n"
            f"  export: {folder!r}: {str(error).partition('. ')[0]}\n"
            "  Plugins are packages: pip install snakemake-storage-plugin-s3 for s3://,"
            " -gcs for gs://, -azure for az://, -fs for a folder.\n"
        )


COPIES = copies_of_products()


def runs_with_an_error():
    """How many runs in the table ended with an error in their code."""
    try:
        with open(f"{RESULTS}/tables/runs.csv", encoding="utf-8", newline="") as file:
            return sum(row["status"] == "error" for row in csv.DictReader(file))
    except FileNotFoundError:
        return 0
