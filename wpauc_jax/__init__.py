"""A language model turned into a Top-K recommender by reinforcement learning: windowed partial AUC in JAX.

`run`, `Results` and `Recommender` are imported when they are asked for, so that parts such as `objectives` stay light.
"""

from typing import Any

__version__ = "0.2.0"
__all__ = ["Recommender", "Results", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'wpauc_jax' has no attribute {name!r}")
    from wpauc_jax import api

    return getattr(api, name)
