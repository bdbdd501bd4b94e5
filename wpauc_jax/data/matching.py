"""Do the descriptions of items use the same ids as the interactions?

The module reports the share of items that have a title, and says why it is low.
"""

import re
from collections.abc import Callable

import polars as pl

from wpauc_jax.data.errors import DataError, shown

_ENOUGH = 0.5  # of the items; below it a warning shows examples
_LOOKED_AT = 10_000  # ids of either side, when it is asked what would make them equal
_EXAMPLES = 3

# What makes two ways of writing one id equal, in words.
_WAYS: dict[str, Callable[[str], str]] = {
    "without '.0' behind numbers": lambda text: re.sub(r"\.0+$", "", text),
    "without zeros before numbers": lambda text: text.lstrip("0"),
    "in one case of letters": str.casefold,
    "without blanks": lambda text: "".join(text.split()),
    "without quotes": lambda text: text.strip("'\""),
}


def share_with_titles(items: pl.Series, described: pl.DataFrame) -> list[str]:
    """What to say of the titles of `items`, the ids of the interactions; `described` has item and title.

    Raises DataError if descriptions have titles, and no item of the interactions gets one.
    """
    if not len(described) or not len(items):
        return []
    is_described = items.is_in(described["item"].implode())
    titled = described.filter(pl.col("title").is_not_null())["item"]
    has_title = items.is_in(titled.implode())
    count, share = int(has_title.sum()), float(has_title.mean() or 0.0)  # type: ignore[arg-type]
    said = f"{count:,} of {len(items):,} items ({share:.1%}) have a title"
    if is_described.any() and not len(titled):
        return ["no item has a title, though items are described"]
    if not count:
        raise DataError(f"{said}: {_both_sides(items.filter(~is_described), items, described['item'])}")
    if share >= _ENOUGH:
        return [said]
    if (is_described.mean() or 0.0) < _ENOUGH:  # type: ignore[operator]
        return [f"warning: {said}; {_both_sides(items.filter(~is_described), items, described['item'])}"]
    return [f"warning: {said}; without one are {_some(items.filter(~has_title))}"]


def _both_sides(missing: pl.Series, items: pl.Series, described: pl.Series) -> str:
    """Ids that nothing describes, described ids that nothing asks for, and what would bring them together."""
    if not len(missing):
        return "every item is described, but with no title"
    unused = described.filter(~described.is_in(items.implode()))
    if not len(unused):
        return f"nothing describes {_some(missing)}"
    out = f"the interactions have the items {_some(missing)}, the descriptions have {_some(unused)}"
    wanted, offered = missing.head(_LOOKED_AT).to_list(), unused.to_list()
    for words, way in _WAYS.items():
        known = set(map(way, offered))
        if sum(way(text) in known for text in wanted) * 2 >= len(wanted):
            return f"{out}; ids would agree {words}: write them alike in both files"
    return f"{out}; write ids alike in both files"


def _some(ids: pl.Series) -> str:
    return ", ".join(shown(text) for text in ids.head(_EXAMPLES))
