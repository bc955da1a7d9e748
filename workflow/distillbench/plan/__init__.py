"""From a config to cells, jobs, files and what reruns which of them. Imports no torch.

Called by workflow/rules and jobs/.
"""
