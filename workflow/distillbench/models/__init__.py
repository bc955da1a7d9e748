"""The GNNs, written once, on the layers of a backend.

Called by training/ and profiling/; backends/ holds what a graph library has to offer.
"""
