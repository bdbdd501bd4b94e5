"""What a mode does with a work directory.

Whatever brings data, catalog, model and checkpoints of one run together belongs here. Formulas, search and the training
loop do not: they stand in the folders before this one.
"""
