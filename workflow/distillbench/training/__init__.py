"""One run, from seed to result: inputs, what a method sees of them, the loop, the experiment.

Called by jobs/ and profiling/.
"""
