PROFILED = 4  # runs: two models in two passes, each of which takes no longer than a run


rule profile:
    input:
        card=f"{RESULTS}/data/{{dataset}}/data.json",
    output:
        teacher=f"{RESULTS}/profiles/{{dataset}}/{{backend}}/{{pair}}/teacher.json",
        student=f"{RESULTS}/profiles/{{dataset}}/{{backend}}/{{pair}}/student.json",
    log:
        f"{RESULTS}/logs/profiles/{{dataset}}/{{backend}}/{{pair}}.log",
    threads: all_cores()  # nothing else beside a measurement
    resources:
        **asks(lambda wildcards: PLAN.demand(cell_of(wildcards), PROFILED)),
        slurm_extra="--exclusive",
    params:
        run=lambda wildcards: PLAN.profile_params(cell_of(wildcards)),
        code=profile_code,
    script:
        "../scripts/profile.py"
