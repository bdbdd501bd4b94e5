"""From prompts to items.

Search, sampling, exact scores and the groups that RL learns from belong here. Rewards and losses do not.
"""

from wpauc_jax.decode.guide import Guide
from wpauc_jax.decode.ranker import Candidates, Prefilled, Ranker
from wpauc_jax.decode.search import (
    constrained_beam_search,
    sample_without_replacement,
    score_catalogue,
    score_items,
)

__all__ = [
    "Candidates",
    "Guide",
    "Prefilled",
    "Ranker",
    "constrained_beam_search",
    "sample_without_replacement",
    "score_catalogue",
    "score_items",
]
