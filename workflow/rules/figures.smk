# Every figure is a PNG and an SVG. What is drawn is in distillbench/figures/, how it looks in one style file.
rule figure:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        comparison=f"{RESULTS}/tables/comparison.parquet",
        sources=PLAN.figure_sources("figures/scores.py"),
    output:
        png=report(
            f"{RESULTS}/figures/{{dataset}}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="Methods",
            labels={
                "data set": "{dataset}",
                "figure": "every seed, mean and interval",
            },
        ),
        svg=f"{RESULTS}/figures/{{dataset}}.svg",
    log:
        f"{RESULTS}/logs/figures/{{dataset}}.log",
    resources:
        runtime=minutes(2),
    params:
        what="dataset",
        arguments=lambda wildcards, input: {
            "runs": input.runs,
            "comparison": input.comparison,
            "name": wildcards.dataset,
            **PLAN.config.compare.model_dump(include={"baseline", "delta"}),
        },
    script:
        "../scripts/draw.py"


rule pareto_figure:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        profiles=PLAN.profile_table(),
        sources=PLAN.figure_sources(
            "statistics/pareto.py", "figures/pareto.py", "figures/labels.py"
        ),
    output:
        png=report(
            f"{RESULTS}/figures/pareto-{{dataset}}.png",
            caption="../report/pareto.rst",
            category="Figures",
            subcategory="Accuracy against cost",
            labels={"data set": "{dataset}", "figure": "accuracy against cost"},
        ),
        svg=f"{RESULTS}/figures/pareto-{{dataset}}.svg",
    log:
        f"{RESULTS}/logs/figures/pareto-{{dataset}}.log",
    resources:
        runtime=minutes(2),
    params:
        what="pareto",
        arguments=lambda wildcards, input: {
            "runs": input.runs,
            "profiles": list(input.profiles),
            "name": wildcards.dataset,
            "baseline": PLAN.config.compare.baseline,
        },
    script:
        "../scripts/draw.py"


rule libraries_figure:
    input:
        equivalence=f"{RESULTS}/tables/equivalence.csv",
        sources=PLAN.figure_sources("statistics/libraries.py", "figures/libraries.py"),
    output:
        png=report(
            f"{RESULTS}/figures/libraries.png",
            caption="../report/libraries.rst",
            category="Figures",
            subcategory="PyG against DGL",
            labels={"data set": "all", "figure": "PyG against DGL"},
        ),
        svg=f"{RESULTS}/figures/libraries.svg",
    log:
        f"{RESULTS}/logs/figures/libraries.log",
    resources:
        runtime=minutes(2),
    params:
        what="libraries",
        arguments=lambda wildcards, input: {"equivalence": input.equivalence},
    script:
        "../scripts/draw.py"


rule across_figure:
    input:
        runs=f"{RESULTS}/tables/runs.parquet",
        sources=PLAN.figure_sources("statistics/across.py", "figures/across.py"),
    output:
        png=report(
            f"{RESULTS}/figures/across.png",
            caption="../report/across.rst",
            category="Figures",
            subcategory="Across data sets",
            labels={"data set": "all", "figure": "ranks over data sets and pairs"},
        ),
        svg=f"{RESULTS}/figures/across.svg",
    log:
        f"{RESULTS}/logs/figures/across.log",
    resources:
        runtime=minutes(5),
    params:
        what="across",
        arguments=lambda wildcards, input: {
            "runs": input.runs,
            **PLAN.config.compare.model_dump(include={"baseline", "alpha"}),
        },
    script:
        "../scripts/draw.py"


rule curves:
    input:
        records=lambda wildcards: PLAN.shards_of(cell_of(wildcards)),
    output:
        png=report(
            f"{RESULTS}/figures/curves/{{dataset}}-{{backend}}-{{pair}}.png",
            caption="../report/curves.rst",
            category="Figures",
            subcategory="Training curves",
            labels={"data set": "{dataset}", "figure": "{pair}, {backend}"},
        ),
        svg=f"{RESULTS}/figures/curves/{{dataset}}-{{backend}}-{{pair}}.svg",
    log:
        f"{RESULTS}/logs/figures/curves/{{dataset}}-{{backend}}-{{pair}}.log",
    resources:
        runtime=minutes(1),
    params:
        what="training",
        arguments=lambda wildcards, input: {
            "records": list(input.records),
            "name": wildcards.dataset,
            "backend": wildcards.backend,
            "pair": wildcards.pair,
        },
        code=PLAN.contents(PLAN.figure_sources("figures/curves.py")),
    script:
        "../scripts/draw.py"
