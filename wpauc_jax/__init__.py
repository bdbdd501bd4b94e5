"""A language model turned into a Top-K recommender by reinforcement learning: windowed partial AUC in JAX."""

__version__ = "0.2.0"
