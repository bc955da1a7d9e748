"""One file a picture, one style for all.

Called by jobs/figures.py and, for structure.py, by its rule; knows statistics/.
"""
