"""The one prompt builder: SFT, RL, evaluation and recommendation all take their token sequences from it."""

from collections.abc import Sequence

import numpy as np

from wpauc_jax.catalog.items import Catalog


class PromptBuilder:
    """Histories to token sequences: `bos`, then the codes of the last `max_history` items, the latest last.

    A prompt has no place for the target; an empty history gives `bos` alone.
    """

    def __init__(self, catalog: Catalog, max_history: int):
        if max_history < 1:
            raise ValueError(f"max_history={max_history} must be at least 1")
        self.catalog = catalog
        self.max_history = max_history

    @property
    def max_tokens(self) -> int:
        """T, the longest prompt possible."""
        return self.width(self.max_history)

    def width(self, items: int) -> int:
        """The longest sequence of `bos` and so many items."""
        return 1 + items * self.catalog.tokens.shape[1]

    def build(self, history: Sequence[int] | np.ndarray) -> np.ndarray:
        """The prompt int32[t] of item numbers in time order; the oldest beyond `max_history` are dropped.

        Raises ValueError for a number outside the catalogue.
        """
        recent = np.asarray(history, np.int64)[-self.max_history :]
        if (recent < 0).any():
            raise ValueError(f"item {recent.min()} is not in the catalogue of {self.catalog.num_items} items")
        tokens, lengths, _ = self.encode(recent[None])
        return tokens[0, : lengths[0]]

    def encode(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of item numbers int[B, M], -1 behind the last, as token sequences; no row is shortened.

        Returns tokens int32[B, width(M)] padded with 0, lengths int32[B], and starts int32[B, M], the index of the
        token just before each item's first (that which predicts it; 0 for padding).
        Raises ValueError for a number outside the catalogue.
        """
        catalog = self.catalog
        if items.size and items.max() >= catalog.num_items:
            raise ValueError(f"item {items.max()} is not in the catalogue of {catalog.num_items} items")
        exists = items >= 0
        counts = np.where(exists, catalog.lengths[items], 0)
        codes = catalog.tokens[items]  # [B, M, C]
        ends = counts.cumsum(1)
        starts = np.where(exists, ends - counts, 0)
        b, m, c = np.nonzero(exists[:, :, None] & (codes >= 0))
        tokens = np.full((len(items), self.width(items.shape[1])), catalog.pad, np.int32)
        tokens[:, 0] = catalog.bos
        tokens[b, starts[b, m] + 1 + c] = codes[b, m, c]
        return tokens, (1 + counts.sum(1)).astype(np.int32), starts.astype(np.int32)
