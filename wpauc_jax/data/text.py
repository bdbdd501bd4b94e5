r"""Text that needs mending, by one rule for every format: halves of surrogate pairs, and words for a missing value.

A character beyond the first 65,536 is two halves in UTF-16. JSON may write one half alone (`\ud83d`), and so may bytes
(ED A0 BD). In titles and texts a lone half becomes U+FFFD. In ids it is refused, because two ids could become one.
"""

import re

import polars as pl

HALF = "holds half of a surrogate pair"  # what is wrong with such an id

# What programs write for a missing value. As a title it is none.
NO_WORDS = (
    *("nan", "NaN", "NAN", "-nan", "None", "none", "null", "NULL", "Null", "<NA>", "NA", "N/A", "n/a", "#N/A", "NaT"),
    "undefined",  # but not "Infinity": a film has that title, and no program writes it for a missing text
)

_HALVES = re.compile("[\ud800-\udfff]")


def has_half(text: str) -> bool:
    """Whether there is half of a surrogate pair in the text."""
    return _HALVES.search(text) is not None


def mended(text: str, sign: str = "\ufffd") -> str:
    """The text with halves that belong together joined, and lone ones replaced by `sign`."""
    if not has_half(text):
        return text
    return _HALVES.sub(sign, text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass"))


def decoded(raw: bytes) -> str | None:
    """UTF-8 as text; halves of surrogate pairs stay what they are. None if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None


def without_no_words(column: str) -> pl.Expr:
    """A column of text, null where it says nothing: empty, blank, or a word for a missing value."""
    bare = pl.col(column).str.strip_chars()
    return pl.when((bare != "") & ~bare.is_in(NO_WORDS)).then(pl.col(column))
