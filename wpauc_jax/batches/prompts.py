"""The one prompt builder. SFT, RL, evaluation and recommendation all take their token sequences from it.

A prompt begins with `head`. Then come the items of the history, the latest last. Then comes what opens the answer. The
answer itself has no place in a prompt.

Each item of the history is `lead`, the item's tokens and the end of a line. The answer is opened by `tail` and `lead`,
so it goes on exactly as an item of the history does. Each part is tokenised on its own. So no merge crosses a border,
and an item has the same tokens wherever it stands.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from wpauc_jax.catalog.items import Catalog, padded
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import ConfigError, PromptConfig


@dataclasses.dataclass(frozen=True)
class PromptFormat:
    """The fixed tokens of a prompt. By default those of a model whose vocabulary is the catalog's alone."""

    head: tuple[int, ...] = (Catalog.bos,)
    lead: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    line_end: int = -1  # ends an item of the history; -1: nothing does
    end: int = -1  # ends an answer, hence every item of the catalog


def text_format(config: PromptConfig, tokenizer: Tokenizer) -> PromptFormat:
    """The prompt of a language model, by `prompt.style`.

    list: the instruction and a list of the items, which the answer continues by one line. chat: the instruction and
    that list are the user's message in the tokenizer's chat template, and the answer is the assistant's.
    """
    (lead,) = tokenizer.encode(["-"])
    return STYLES[config.style](config.instruction + "\n", tuple(lead), tokenizer)


def _list_format(instruction: str, lead: tuple[int, ...], tokenizer: Tokenizer) -> PromptFormat:
    (head,) = tokenizer.encode([instruction])
    return PromptFormat((*tokenizer.bos, *head), lead, (), tokenizer.newline, tokenizer.newline)


def _chat_format(instruction: str, lead: tuple[int, ...], tokenizer: Tokenizer) -> PromptFormat:
    head, tail = tokenizer.chat(instruction)
    return PromptFormat(tuple(head), lead, tuple(tail), tokenizer.newline, tokenizer.eos)


STYLES = {"list": _list_format, "chat": _chat_format}  # by prompt.style

Titles = Sequence[Sequence[int]] | None  # tokens, one list an item; None: items are no semantic ids beside titles


def _as_answered(titles: Titles) -> Titles:
    """A history shows items in the way in which they are answered, whether they have titles or not."""
    return None


def _by_titles(titles: Titles) -> Titles:
    if titles is None:
        raise ConfigError("prompt.history='titles' needs semantic ids (catalog.ids) inside a model with a tokenizer")
    return titles


HISTORIES = {"items": _as_answered, "titles": _by_titles}  # by prompt.history: what a `PromptBuilder` is to show


class PromptBuilder:
    """Histories to token sequences of at most `max_history` items and, if above 0, at most `limit` tokens.

    The oldest items that do not fit are dropped whole; head and tail always stand. A history shows items as they are
    answered, or by the tokens of `shown`, one list an item. `widths`, ascending, are those to which a batch of prompts
    may be padded; the longest prompt possible joins them. With `exclude_history`, batches of prompts say that no item
    of the whole history may answer, not only those that a prompt shows. `causal` says whether the model is (see
    `Family.causal`), and `timed` whether it takes the times of items, each of them one token. Raises ConfigError if
    `limit` cannot hold one item of every length.
    """

    def __init__(
        self,
        catalog: Catalog,
        max_history: int,
        form: PromptFormat | None = None,
        limit: int = 0,
        shown: Sequence[Sequence[int]] | None = None,
        widths: Sequence[int] = (),
        exclude_history: bool = False,
        causal: bool = True,
        timed: bool = False,
    ):
        if max_history < 1:
            raise ValueError(f"max_history={max_history} must be at least 1")
        self.catalog = catalog
        self.max_history = max_history
        self.exclude_history = exclude_history
        self.timed = timed
        self.guide: PromptBuilder | None = None  # that of the search's guide
        self.form = form or PromptFormat()
        self._limit = limit
        self._open = np.asarray(self.form.tail + self.form.lead, np.int32)
        # Whether a history goes on with the answer just as with one more item: then one causal pass over a user's
        # items predicts every next one, and otherwise a pass predicts one.
        self.continues = causal and shown is None and not self.form.tail and self.form.line_end == self.form.end
        self._entries = _entries(catalog, self.form, shown)
        self.item_lengths = (self._entries >= 0).sum(1)  # int[I], tokens of an item in the history
        fixed, longest = len(self.form.head) + len(self._open), self._entries.shape[1]
        if 0 < limit < fixed + longest:
            raise ConfigError(
                f"prompt.max_tokens={limit} is too small: the instruction takes {fixed} tokens and an item up to "
                f"{longest}; raise it, shorten prompt.instruction, or lower catalog.max_title_tokens"
            )
        self.history_tokens = (limit or fixed + longest * max_history) - fixed  # room for the items of the history
        self.widths = (*(width for width in widths if width < self.max_tokens), self.max_tokens)

    def with_guide(self, guide: "PromptBuilder") -> "PromptBuilder":
        """The same prompts, and where they are to be answered those of the search's guide beside them."""
        other = copy.copy(self)
        other.guide = guide
        return other

    def with_rule(self, exclude_history: bool) -> "PromptBuilder":
        """The same prompts under the other rule of what may answer."""
        other = copy.copy(self)
        other.exclude_history = exclude_history
        return other

    @property
    def max_tokens(self) -> int:
        """T, the longest prompt possible."""
        return self.width(self.max_history)

    @property
    def fingerprint(self) -> str:
        """sha256 of what surrounds the items, of how a history shows them, and of the limit."""
        facts = repr((dataclasses.astuple(self.form), self._limit)).encode()
        return hashlib.sha256(facts + self._entries.astype("<i4").tobytes()).hexdigest()

    def token_times(self, seconds: np.ndarray, width: int) -> np.ndarray:
        """The times int32[B, width] of the tokens of histories, of those of items int32[B, M], each of one token.

        What stands before the items has the time 0, that of the first of them.
        """
        times = np.zeros((len(seconds), width), np.int32)
        first = len(self.form.head)
        times[:, first : first + seconds.shape[1]] = seconds[:, : width - first]
        return times

    def width(self, items: int) -> int:
        """The longest prompt of so many items."""
        history = min(items * self._entries.shape[1], self.history_tokens)
        return len(self.form.head) + history + len(self._open)

    def padded_width(self, longest: int) -> int:
        """The least of `widths` that holds a prompt of so many tokens."""
        return next(width for width in self.widths if width >= longest)

    def row_width(self, items: int) -> int:
        """The longest row of so many items, the last of them the answer."""
        return self.width(items - 1) + self.catalog.tokens.shape[1]

    def build(self, history: Sequence[int] | np.ndarray) -> np.ndarray:
        """The prompt int32[t] of item numbers in time order.

        Raises ValueError for a number outside the catalog.
        """
        recent = np.asarray(history, np.int64)[-self.max_history :]
        if (recent < 0).any():
            raise ValueError(f"item {recent.min()} is not in the catalog of {self.catalog.num_items} items")
        tokens, lengths = self.prompts(recent[None])
        return tokens[0, : lengths[0]]

    def prompts(self, items: np.ndarray, width: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The prompts of histories int[B, M], -1 behind the last item.

        Returns tokens int32[B, width] padded with 0, by default to the longest of M items, and lengths int32[B].
        Raises ValueError for a number outside the catalog.
        """
        tokens, lengths, _ = self._lay_out(items, width or self.width(items.shape[1]))
        return tokens, lengths

    def lengths(self, items: np.ndarray) -> np.ndarray:
        """The lengths int64[B] of the prompts of histories int[B, M], -1 behind the last item."""
        return self.width(0) + np.where(self._kept(items), self.item_lengths[items], 0).sum(1)

    def rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training rows of items int[B, M], -1 behind the last: the prompt of all but the last item, then the last.

        Returns tokens int32[B, row_width(M)] padded with 0, lengths int32[B], and starts int32[B, M], the place of the
        token just before each item's own (that which predicts its first; 0 for an item that is absent or dropped).
        Raises ValueError for a number outside the catalog.
        """
        row, last = np.arange(len(items)), (items >= 0).sum(1) - 1
        history = items.copy()
        history[row, last] = -1
        tokens, lengths, starts = self._lay_out(history, self.row_width(items.shape[1]))
        starts[row, last] = lengths - 1
        answers = items[row, last]
        self._check(answers)
        _write(tokens, lengths[:, None], self.catalog.tokens[answers][:, None])
        return tokens, lengths + self.catalog.lengths[answers], starts

    def _lay_out(self, items: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prompts int32[B, width], their lengths int32[B], and the places int32[B, M] before the items' own tokens."""
        self._check(items)
        head, lead = self.form.head, self.form.lead
        kept = self._kept(items)
        counts = np.where(kept, self.item_lengths[items], 0)
        ends = len(head) + counts.cumsum(1)
        lengths = len(head) + counts.sum(1)
        tokens = np.full((len(items), width), self.catalog.pad, np.int32)
        tokens[:, : len(head)] = head
        _write(tokens, ends - counts, np.where(kept[..., None], self._entries[items], -1))
        _write(tokens, lengths[:, None], np.broadcast_to(self._open, (len(items), 1, len(self._open))))
        starts = np.where(kept, ends - counts + len(lead) - 1, 0)
        return tokens, (lengths + len(self._open)).astype(np.int32), starts.astype(np.int32)

    def _kept(self, items: np.ndarray) -> np.ndarray:
        """bool[B, M]: which items are there and fit."""
        counts = np.where(items >= 0, self.item_lengths[items], 0)
        return (items >= 0) & (counts[:, ::-1].cumsum(1)[:, ::-1] <= self.history_tokens)

    def _check(self, items: np.ndarray) -> None:
        if items.size and items.max() >= self.catalog.num_items:
            raise ValueError(f"item {items.max()} is not in the catalog of {self.catalog.num_items} items")


def _entries(catalog: Catalog, form: PromptFormat, shown: Sequence[Sequence[int]] | None) -> np.ndarray:
    """Items as they stand in a history, int32[I, E], -1 behind the last token."""
    if catalog.end != form.end:
        raise ValueError(f"the catalog's items end in token {catalog.end}, the prompts' answers in {form.end}")
    if shown is None:
        shown = [row[:-1] if form.end >= 0 else row for row in catalog.sequences()]
    line_end = [form.line_end] if form.line_end >= 0 else []
    return padded([[*form.lead, *tokens, *line_end] for tokens in shown])


def _write(tokens: np.ndarray, at: np.ndarray, values: np.ndarray) -> None:
    """Puts `values` [B, M, C], as far as they are not -1, into rows of `tokens` from the places `at` [B, M] on."""
    b, m, c = np.nonzero(values >= 0)
    tokens[b, at[b, m] + c] = values[b, m, c]
