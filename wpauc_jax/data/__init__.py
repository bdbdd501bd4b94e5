"""Raw files become a prepared directory: readers, filters, splits, tables.

Tokens, prompts and batches come later; nothing here knows of a model.
"""
