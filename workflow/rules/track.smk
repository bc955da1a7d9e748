rule track:
    input:
        tables=PLAN.table_files(),  # of all records
        figures=figure_files(PLAN),
        page=f"{RESULTS}/report/index.html",
    output:
        synced=f"{RESULTS}/mlflow/synced.json",
    log:
        f"{RESULTS}/logs/track.log",
    resources:
        runtime=minutes(30),
    script:
        "../scripts/track.py"


onerror:
    # what has finished can be seen in MLflow, also when something else failed
    shell("{sys.executable:q} -m distillbench sync --results {RESULTS:q} || true")
