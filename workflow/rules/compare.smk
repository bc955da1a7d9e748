rule collect:
    input:
        records=PLAN.shard_files(),
        chosen=PLAN.tuning_files(),
        code=PLAN.code_files(),  # newer than the table: it looks again whether the records are of this code
        sources=PLAN.table_sources(),
    output:
        csv=f"{RESULTS}/tables/runs.csv",
        parquet=f"{RESULTS}/tables/runs.parquet",
        rows=f"{RESULTS}/tables/rows.npz",
    log:
        f"{RESULTS}/logs/collect.log",
    resources:
        runtime=minutes(5),
    params:
        expected=PLAN.expected(),
        skipped=PLAN.skipped(),
        order=PLAN.methods,
    script:
        "../scripts/collect.py"


rule compare:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        rows=f"{RESULTS}/tables/rows.npz",
        cards=PLAN.cards(),
        tuning=PLAN.tuning_files(),
        sources=PLAN.table_sources(),
    output:
        csv=report(
            f"{RESULTS}/tables/comparison.csv",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "comparison", "form": "every column, full precision"},
        ),
        html=report(
            f"{RESULTS}/tables/comparison.html",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "comparison", "form": "to read"},
        ),
        parquet=f"{RESULTS}/tables/comparison.parquet",
        tex=f"{RESULTS}/tables/comparison.tex",
        markdown=f"{RESULTS}/tables/comparison.md",
        equivalence=f"{RESULTS}/tables/equivalence.csv",
        times=f"{RESULTS}/tables/times.csv",
        across=f"{RESULTS}/tables/across.csv",
    log:
        f"{RESULTS}/logs/compare.log",
    resources:
        runtime=minutes(10),
    params:
        compare=PLAN.config.compare.model_dump(),
        protocols=PLAN.remarks(),
    script:
        "../scripts/compare.py"


rule profiles:
    input:
        profiles=PLAN.profile_files(),
        sources=PLAN.table_sources(),
    output:
        csv=f"{RESULTS}/tables/profiles.csv",
    log:
        f"{RESULTS}/logs/profiles.log",
    resources:
        runtime=minutes(5),
    script:
        "../scripts/profiles.py"


rule pareto:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        profiles=PLAN.profile_table(),
        sources=PLAN.table_sources(),
    output:
        csv=f"{RESULTS}/tables/pareto.csv",
    log:
        f"{RESULTS}/logs/pareto.log",
    resources:
        runtime=minutes(5),
    script:
        "../scripts/pareto.py"


onsuccess:
    if errors := runs_with_an_error():
        print(
            f"\nRuns that ended with an error: {errors}. {RESULTS}/tables/runs.csv says which and why,"
            f" {RESULTS}/logs/ has their tracebacks."
        )
