"""From the table of runs to differences, intervals, verdicts and sentences. Imports no torch.

Called by tables/, figures/ and report/.
"""
