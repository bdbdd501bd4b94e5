"""What a mode does with a work directory.

Here data, catalog, model and checkpoints of one run come together; the formulas and programs themselves are below."""
