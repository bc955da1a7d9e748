# Equal tuning: as many trials for every method, on seeds that are never reported. Nothing asks for it where the config
# has `tune: none`.
rule tuning_teacher:
    input:
        card=f"{RESULTS}/data/{{dataset}}/data.json",
    output:
        records=f"{RESULTS}/tuning/teachers/{{dataset}}/{{backend}}/{{pair}}/records-0.json",
    log:
        f"{RESULTS}/logs/tuning/teachers/{{dataset}}/{{backend}}/{{pair}}.log",
    priority: 20  # the trials wait for it, and everything else for them
    threads: 1
    resources:
        **asks(
            lambda wildcards: PLAN.demand(cell_of(wildcards), PLAN.config.tune.seeds)
        ),
    params:
        run=lambda wildcards: PLAN.tuning_teacher_params(cell_of(wildcards)),
        code=teacher_code,
    script:
        "../scripts/train.py"


rule tune:
    input:
        card=f"{RESULTS}/data/{{dataset}}/data.json",
        teachers=tuning_teachers_of,
        method=method_files,
    output:
        chosen=f"{RESULTS}/tuning/{{dataset}}/{{pair}}/{{method}}.json",
    log:
        f"{RESULTS}/logs/tuning/{{dataset}}/{{pair}}/{{method}}.log",
    priority: 15
    threads: 1
    resources:
        **asks(
            lambda wildcards: PLAN.demand(
                tuned_cell(wildcards),
                PLAN.config.tune.seeds * PLAN.config.tune.trials,
            )
        ),
    params:
        tuning=lambda wildcards: PLAN.tuning_params(
            tuned_cell(wildcards), wildcards.method
        ),
        code=tuning_code,
    script:
        "../scripts/tune.py"


rule tuning_table:
    input:
        chosen=PLAN.tuning_files(),
        sources=PLAN.table_sources(),
    output:
        csv=f"{RESULTS}/tables/tuning.csv",
    log:
        f"{RESULTS}/logs/tuning.log",
    resources:
        runtime=minutes(5),
    script:
        "../scripts/tuning_table.py"
