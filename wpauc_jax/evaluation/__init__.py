"""How good lists are.

Ranks, their comparison, baselines without training, tables and plots belong here. Training and work directories do not.
"""
