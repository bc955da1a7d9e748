# Our runs beside published results, for the pairs that name some. Nothing asks for it where no pair does.
rule reproduce:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        cards=sorted(
            {
                str(PLAN.paths.data(pair["dataset"]) / "data.json")
                for pair in PLAN.published_pairs()
            }
        ),
        sources=PLAN.reproduce_sources(),
    output:
        csv=f"{RESULTS}/tables/reproduction.csv",
        html=report(
            f"{RESULTS}/tables/reproduction.html",
            caption="../report/reproduction.rst",
            category="Tables",
            labels={"table": "published results beside ours", "form": "to read"},
        ),
        markdown=f"{RESULTS}/tables/reproduction.md",
    log:
        f"{RESULTS}/logs/reproduce.log",
    resources:
        runtime=minutes(5),
    params:
        pairs=PLAN.published_pairs(),
    script:
        "../scripts/reproduce.py"
