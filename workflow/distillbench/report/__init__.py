"""From tables and figures to the one page; what publishes a run.

Called by its rule and by cli/.
"""
