"""Benchmarks of the code itself: how fast it is beside plain formulations, and how far from what a machine can do."""
