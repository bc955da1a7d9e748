"""One file a picture, one style for all.

Listed in registry.py, and called by the rule of each and by report/; knows statistics/.
"""
