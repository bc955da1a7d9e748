"""The config file, checked: what runs, which models, which variants of methods. Imports no torch.

Called by plan/, and by whoever reads a config; knows the ground alone.
"""
