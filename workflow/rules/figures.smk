# Every figure of distillbench/plan/figures.py is a PNG and an SVG; how they look is in one style file.
from distillbench.plan.figures import FIGURES


def group_of_report(wildcards):
    """Where a profile has one: outside of it, a figure would wait for the group that waits for the figure."""
    return workflow.group_settings.overwrite_groups.get("report")


def files_of(figure):
    return lambda wildcards: figure.drawn_from(PLAN, wildcards)


def arguments_of(figure):
    return lambda wildcards: {
        **figure.drawn_from(PLAN, wildcards),
        **wildcards,
        **figure.settings(PLAN),
    }


def about(figure):
    return lambda wildcards: figure.about.format(**wildcards)


for FIGURE in FIGURES:

    rule:
        name:
            f"{FIGURE.module}_figure"
        input:
            unpack(files_of(FIGURE)),
        output:
            png=report(
                f"{RESULTS}/figures/{FIGURE.file}.png",
                caption="../report/figure.rst",
                category="Figures",
                subcategory=FIGURE.heading,
                labels={
                    "data set": "{dataset}" if "{dataset}" in FIGURE.file else "all",
                    "figure": FIGURE.label,
                },
            ),
            svg=f"{RESULTS}/figures/{FIGURE.file}.svg",
        log:
            f"{RESULTS}/logs/figures/{FIGURE.file}.log",
        group:
            group_of_report if FIGURE.section == "figures" else None
        resources:
            runtime=minutes(FIGURE.minutes),
        params:
            draw=f"distillbench.figures.{FIGURE.module}:draw",
            arguments=arguments_of(FIGURE),
            about=about(FIGURE),
            code=PLAN.contents(
                PLAN.figure_sources(f"figures/{FIGURE.module}.py", *FIGURE.sources)
            ),
        script:
            "../scripts/draw.py"
