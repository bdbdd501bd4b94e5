"""A language model turned into a Top-K recommender by reinforcement learning: windowed partial AUC in JAX."""
