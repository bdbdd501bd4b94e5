"""From prompts to items.

Here are search, sampling, exact scores and groups; rewards and losses are not known here.
"""

from wpauc_jax.decode.ranker import Candidates, Ranker
from wpauc_jax.decode.search import (
    constrained_beam_search,
    sample_without_replacement,
    score_catalogue,
    score_items,
)

__all__ = [
    "Candidates",
    "Ranker",
    "constrained_beam_search",
    "sample_without_replacement",
    "score_catalogue",
    "score_items",
]
