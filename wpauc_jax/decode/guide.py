"""A second opinion in the search: another model's share of the items below each node (D3, arXiv 2406.14900).

A language model likes titles that are likely as text. D3 mixes each of its steps with a model that knows no text: the
share of that model's probability which the items below a child have among those below its parent. Over the steps of an
item the shares multiply to the item's own probability. So the score of an item is
(1 - share) log p(item) + share log q(item), where q is the guide's softmax over the items that may answer.
"""

import dataclasses
import functools

import jax

from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.trie import Trie
from wpauc_jax.decode.ranker import Ranker
from wpauc_jax.models import Params
from wpauc_jax.runtime.sharding import by_user


@functools.partial(jax.tree_util.register_dataclass, data_fields=["ranker", "params"], meta_fields=["share"])
@dataclasses.dataclass(frozen=True, eq=False)
class Guide:
    """A trained model of the same items, each of them one token."""

    ranker: Ranker
    params: Params
    share: float  # of the guide in a score; D3's 1 - alpha

    def log_shares(self, trie: Trie, prompts: PromptBatch) -> jax.Array:
        """float32[B, N]: the log of the guide's probability of the items below each node; -inf where none may answer.

        `prompts` are those of the guide. They name the items that may not answer.
        """
        params = self.ranker.policy.gathered(self.params)
        logs = self.ranker.score_all(params, self.ranker.prefill(params, prompts))
        return by_user(trie.log_sums)(logs)

    def mixed(self, logps: jax.Array, shares: jax.Array) -> jax.Array:
        """Log-probabilities of steps, mixed with the logs of the guide's shares in them."""
        return (1 - self.share) * logps + self.share * shares
