"""The Method contract and the numerical cores that methods share: local structure, blocks of edges and rows.

Called by methods/ (through plugin.py) and training/.
"""
