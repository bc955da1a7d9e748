"""What each rule of the DAG does, in a process of its own or forked from a warm one; and the same without Snakemake.

Called by workflow/scripts and cli/.
"""
