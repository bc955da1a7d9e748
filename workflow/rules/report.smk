# The page that is opened first. Its conclusions are sentences made from the verdicts of the tables.
from distillbench.report.facts import facts_of


rule report:
    input:
        tables=PLAN.table_files(),  # of all records
        figures=figure_files(PLAN),
        cards=PLAN.cards(),
        sources=PLAN.report_sources(),
    output:
        html=report(
            f"{RESULTS}/report/index.html",
            caption="../report/page.rst",
            category="Start here",
            labels={"page": "conclusions and everything behind them"},
        ),
        shown=f"{RESULTS}/report/shown.json",
    log:
        f"{RESULTS}/logs/report.log",
    resources:
        runtime=minutes(5),
    params:
        facts=facts_of(PLAN),
    script:
        "../scripts/report.py"
