rule distill:
    input:
        card=f"{RESULTS}/data/{{dataset}}/data.json",
        teachers=teachers_of,
        chosen=chosen_values,
        method=method_files,
    output:
        records=f"{RESULTS}/runs/{{dataset}}/{{backend}}/{{pair}}/{{method}}/records-{{shard}}.json",
    log:
        f"{RESULTS}/logs/runs/{{dataset}}/{{backend}}/{{pair}}/{{method}}/{{shard}}.log",
    threads: 1
    resources:
        **asks(demand_of_shard),
    params:
        run=student_params,
        code=student_code,
    script:
        "../scripts/train.py"
