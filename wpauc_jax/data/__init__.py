"""From raw interactions to batches: readers, preparation, the prompt builder and the pipelines. NumPy only."""
