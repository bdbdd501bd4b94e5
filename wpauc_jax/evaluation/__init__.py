"""How good lists are.

Here are ranks, their comparison, baselines without training, tables and plots; nothing here trains."""
