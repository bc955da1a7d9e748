rule teacher:
    input:
        card=f"{RESULTS}/data/{{dataset}}/data.json",
    output:
        records=f"{RESULTS}/teachers/{{dataset}}/{{backend}}/{{pair}}/records-{{shard}}.json",
    log:
        f"{RESULTS}/logs/teachers/{{dataset}}/{{backend}}/{{pair}}/{{shard}}.log",
    priority: 10  # everything else waits for the teachers
    threads: 1
    resources:
        **asks(demand_of_shard),
    params:
        run=teacher_params,
        code=teacher_code,
    script:
        "../scripts/train.py"
