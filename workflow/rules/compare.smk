rule collect:
    input:
        records=PLAN.shard_files(),
        chosen=PLAN.tuning_files(),
        sources=PLAN.table_sources(),
    output:
        csv=f"{RESULTS}/tables/runs.csv",
        parquet=f"{RESULTS}/tables/runs.parquet",
    log:
        f"{RESULTS}/logs/collect.log",
    params:
        expected=PLAN.expected(),
        skipped=PLAN.skipped(),
        order=PLAN.methods,
    script:
        "../scripts/collect.py"


rule compare:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        cards=PLAN.cards(),
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
        tex=f"{RESULTS}/tables/comparison.tex",
        markdown=f"{RESULTS}/tables/comparison.md",
        equivalence=f"{RESULTS}/tables/equivalence.csv",
    log:
        f"{RESULTS}/logs/compare.log",
    params:
        compare=PLAN.config.compare.model_dump(),
        protocols=PLAN.remarks(),
    script:
        "../scripts/compare.py"


rule figure:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        sources=PLAN.figure_sources(),
    output:
        png=report(
            f"{RESULTS}/figures/{{dataset}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"data set": "{dataset}", "shows": "every seed, mean and interval"},
        ),
        svg=f"{RESULTS}/figures/{{dataset}}.svg",
    log:
        f"{RESULTS}/logs/figures/{{dataset}}.log",
    params:
        compare=PLAN.config.compare.model_dump(include={"baseline", "alpha"}),
    script:
        "../scripts/figure.py"


rule profiles:
    input:
        profiles=PLAN.profile_files(),
    output:
        csv=f"{RESULTS}/tables/profiles.csv",
    log:
        f"{RESULTS}/logs/profiles.log",
    script:
        "../scripts/profiles.py"
