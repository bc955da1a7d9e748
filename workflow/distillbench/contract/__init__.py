"""What every plug-in must hold, and the checks of it: ``distillbench check``, the contract tests, docs/methods.md.

Called by cli/, tests/ and the report; runs methods as training/ does.
"""
