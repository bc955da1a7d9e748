"""What a model costs: time, memory, operations, energy.

Called by its rule; trust.py says when a figure is to be trusted.
"""
