# The results stay where jobs exchange their files; what a run ends in is copied by Snakemake's storage plugins.
if COPIES:

    rule export:
        input:
            PRODUCTS,
        output:
            COPIES,
        log:
            f"{RESULTS}/logs/export.log",
        localrule: True  # nodes of a cluster are often without a network
        script:
            "../scripts/export.py"
