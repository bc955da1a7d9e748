"""Records as MLflow shows them: a sync that may be repeated, the page, a server for a team.

Called by its rule and by cli/.
"""
