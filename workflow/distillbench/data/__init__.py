"""Graphs, tasks and splits as plain tensors, and the readers of files that data sets come in.

Called by datasets/ (through plugin.py), models/, training/.
"""
