"""Training steps, and the loop that takes them.

States, the losses of batches, the optimizer and checkpoints belong here. Where a run keeps its files does not: `stages`
decides it.
"""
