"""Steps, and the loop that takes them.

Here are states, losses on batches, the optimizer and checkpoints. `stages` decides where a run keeps its files.
"""
