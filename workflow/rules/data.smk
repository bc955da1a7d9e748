rule dataset:
    input:
        plugin=lambda wildcards: PLAN.dataset_file(wildcards.dataset),
        files=lambda wildcards: PLAN.data_files(wildcards.dataset),
        sources=lambda wildcards: PLAN.data_sources(wildcards.dataset),
    output:
        arrays=f"{RESULTS}/data/{{dataset}}/data.npz",
        card=f"{RESULTS}/data/{{dataset}}/data.json",
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    resources:
        **asks(lambda wildcards: PLAN.data_demand(wildcards.dataset), gpus=False),
    params:
        data=lambda wildcards: PLAN.data_params(wildcards.dataset),
    script:
        "../scripts/dataset.py"
