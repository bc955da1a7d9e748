# The paper's picture, a target of its own: `snakemake structure_figures`. Nothing else asks for it.
from distillbench.plan.figures import STRUCTURE


rule structure_figures:
    input:
        lambda wildcards: PLAN.structure_files(),  # asked only when wanted: it may be an error


rule structure_figure:
    input:
        records=lambda wildcards: PLAN.structure_inputs(cell_of(wildcards)),
        sources=lambda wildcards: PLAN.structure_sources(cell_of(wildcards)),
    output:
        png=report(
            f"{RESULTS}/figures/{STRUCTURE.file}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory=STRUCTURE.heading,
            labels={"data set": "{dataset}", "figure": STRUCTURE.label},
        ),
        svg=f"{RESULTS}/figures/{STRUCTURE.file}.svg",
    log:
        f"{RESULTS}/logs/figures/{STRUCTURE.file}.log",
    threads: 1
    resources:
        **asks(lambda wildcards: PLAN.demand(cell_of(wildcards), 1)),
    params:
        figure=lambda wildcards: PLAN.structure_params(cell_of(wildcards)),
        about=about(STRUCTURE),
    script:
        "../scripts/structure_figures.py"
