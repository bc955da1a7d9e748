# The paper's picture, a target of its own: `snakemake structure_figures`. Nothing else asks for it.
rule structure_figures:
    input:
        lambda wildcards: PLAN.structure_files(),  # asked only when wanted: it may be an error


rule structure_figure:
    input:
        records=lambda wildcards: PLAN.structure_inputs(cell_of(wildcards)),
        sources=lambda wildcards: PLAN.structure_sources(cell_of(wildcards)),
    output:
        png=report(
            f"{RESULTS}/figures/structure/{{dataset}}-{{backend}}-{{pair}}.png",
            caption="../report/structure.rst",
            category="Figures",
            subcategory="Structure of the feature space",
            labels={
                "data set": "{dataset}",
                "library": "{backend}",
                "pair": "{pair}",
            },
        ),
        svg=f"{RESULTS}/figures/structure/{{dataset}}-{{backend}}-{{pair}}.svg",
    log:
        f"{RESULTS}/logs/figures/structure/{{dataset}}-{{backend}}-{{pair}}.log",
    threads: 1
    resources:
        **asks(lambda wildcards: PLAN.demand(cell_of(wildcards), 1)),
    params:
        figure=lambda wildcards: PLAN.structure_params(cell_of(wildcards)),
    script:
        "../scripts/structure_figures.py"
