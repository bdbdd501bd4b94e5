"""Raw files become a prepared directory.

Fetching, readers, filters, splits and tables belong here; they use Polars, Arrow and NumPy. Tokens, prompts, models and
devices do not.
"""
