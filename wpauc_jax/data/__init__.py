"""Raw files become a prepared directory here: fetching, readers, filters, splits, tables; by Polars, Arrow and NumPy.

Tokens, prompts and batches come in later folders. Nothing here knows of a model or of a device.
"""
