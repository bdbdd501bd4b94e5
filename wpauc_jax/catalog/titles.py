"""Titles as items: an item is the tokens of its title. Numbers make equal titles distinct, and one token ends each."""

import collections
from collections.abc import Sequence

import numpy as np

from wpauc_jax.catalog.items import Catalog, padded
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import ConfigError

_CUT_CHARACTER = "\ufffd"  # what part of a character decodes to


def catalog_from_titles(
    titles: Sequence[str], item_ids: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int, end: int
) -> Catalog:
    """Item i is the tokens of " " + titles[i], at most `max_tokens` of them, and then `end`.

    White space in a title becomes single spaces; an item without a title goes by its id, and so does one of whose title
    the tokenizer leaves nothing. A longer title loses its end, at the border of a character. Items whose tokens then
    coincide are all numbered in the order of the items, " (1)", " (2)", ..., within `max_tokens` too; a number that
    some other item's title has already is passed over. So items differ, and since no title holds `end`, none begins
    another.

    Raises ConfigError where `max_tokens` has no room for a number, and for a tokenizer that cannot tell numbers apart,
    or whose tokens of a title hold `end`.
    """
    whole = title_tokens(titles, item_ids, tokenizer)
    _check_spelling(whole, item_ids, tokenizer, end)
    cut = [_cut(tokens, max_tokens, tokenizer) for tokens in whole]
    groups: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    for item, tokens in enumerate(cut):
        groups[tuple(tokens)].append(item)
    taken = {tokens for tokens, group in groups.items() if len(group) == 1}
    shared = [group for group in groups.values() if len(group) > 1]
    for group in shared:
        number, most = 0, len(taken) + len(group)
        for item in group:
            title, candidate = cut[item], None
            while candidate is None or candidate in taken:
                number += 1
                if number > most:
                    raise ConfigError(
                        f"the tokenizer {tokenizer.path} gives different numbers the same tokens, so items of one "
                        f"title cannot be told apart, as {item_ids[item]!r}; set catalog.ids='kmeans'"
                    )
                candidate = tuple(_numbered(title, number, max_tokens, tokenizer))
            taken.add(candidate)
            cut[item] = list(candidate)
    sizes = [len(group) for group in shared]
    return Catalog(
        tokens=padded([[*tokens, end] for tokens in cut]),
        lengths=np.asarray([len(tokens) + 1 for tokens in cut], np.int32),
        vocab_size=tokenizer.size,
        first_code=tokenizer.size,
        end=end,
        level_sizes=(),
        codes_used=(),
        cut=sum(len(tokens) > max_tokens for tokens in whole),
        repairs=sum(sizes),
        duplicates=sum(sizes) - len(sizes),
        largest_group=max(sizes, default=1),
        codes=np.zeros(0, np.int32),
        code_names=(),
        unknown=sum(tokenizer.unknown in tokens for tokens in whole),
    )


def _check_spelling(whole: Sequence[Sequence[int]], item_ids: Sequence[str], tokenizer: Tokenizer, end: int) -> None:
    for item, tokens in zip(item_ids, whole, strict=True):
        if end in tokens:
            raise ConfigError(
                f"the tokenizer {tokenizer.path} spells the title of item {item!r} with the token that ends an item "
                f"({end}), so titles cannot be items; set catalog.ids='kmeans'"
            )


def title_tokens(
    titles: Sequence[str], item_ids: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int = 0
) -> list[list[int]]:
    """The tokens of " " + each title as `catalog_from_titles` says, cut but not numbered; `max_tokens=0` is no cut.

    Raises ConfigError for an item of whose title and id the tokenizer leaves nothing.
    """
    lines = [" ".join((title or raw).split()) or raw for title, raw in zip(titles, item_ids, strict=True)]
    whole = tokenizer.encode([" " + line for line in lines])
    for item, tokens in enumerate(whole):
        if not tokens:
            (whole[item],) = tokenizer.encode([" " + item_ids[item]])
        if not whole[item]:
            raise ConfigError(
                f"the tokenizer {tokenizer.path} leaves nothing of the title and the id of item {item_ids[item]!r}; "
                "give the item a title, or set another tokenizer"
            )
    return [_cut(tokens, max_tokens or len(tokens), tokenizer) for tokens in whole]


def _cut(tokens: list[int], limit: int, tokenizer: Tokenizer) -> list[int]:
    """At most `limit` tokens, none of which ends inside a character."""
    if len(tokens) <= limit:
        return tokens
    while limit > 1 and tokenizer.decode(tokens[:limit]).endswith(_CUT_CHARACTER):
        limit -= 1
    return tokens[:limit]


def _numbered(title: list[int], number: int, limit: int, tokenizer: Tokenizer) -> list[int]:
    suffix = tokenizer.encode([f" ({number})"])[0]
    if len(suffix) >= limit:
        raise ConfigError(
            f"catalog.max_title_tokens={limit} has no room for a title and the number {number} that tells it from "
            f"others like it ({len(suffix)} tokens)"
        )
    return _cut(title, limit - len(suffix), tokenizer) + suffix
