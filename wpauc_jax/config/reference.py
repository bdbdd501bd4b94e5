"""The reference of all settings, made of the dataclasses: `python -m wpauc_jax.config` prints it.

What a field means is the comment at the end of its line, or the comment lines above it. So a dataclass of settings
reads as before, and the reference cannot differ from it.
"""

import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
import types
import typing
from typing import Any

from wpauc_jax.config.fields import MOST
from wpauc_jax.config.run import MODES, Config

_WIDTH = 118
_PLAIN = {int: "whole number", float: "number", bool: "True or False", str: "text"}
_HEAD = """\
# Settings

Every setting of a run, in groups. This page is made of the code: `python -m wpauc_jax.config` prints it.

- A setting is given on the command line as `--config.NAME=VALUE`, as in `--config.rl.target_k=5`. A tuple is given as
  `--config.eval.recall_at="(1, 5)"`.
- A file of `configs/` sets what differs from the defaults below.
- A value of another type, or out of bounds, is an error before anything runs.
- A file or folder may begin with `~`.
"""


def reference() -> str:
    """The whole reference in Markdown."""
    return "\n".join([_HEAD, *_section(Config, Config(), "")]).rstrip() + "\n"


@functools.cache
def meanings(kind: type) -> dict[str, str]:
    """What each field that a dataclass itself defines means, by the comments of its source."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
    alone = {number for number in comments if source.splitlines()[number - 1].lstrip().startswith("#")}
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = node.lineno
            while above - 1 in alone:
                above -= 1
            lines = range(above, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(comments[number] for number in lines if number in comments)
    return found


def meaning(kind: type, name: str) -> str:
    """What a field means, also where a base class defines it; empty where no comment says so."""
    return next((meanings(base)[name] for base in kind.__mro__ if _defines(base, name)), "")


def _defines(base: type, name: str) -> bool:
    return dataclasses.is_dataclass(base) and name in meanings(base)


def _section(kind: type, values: Any, prefix: str) -> list[str]:
    lines = [f"## {prefix.rstrip('.') or 'The run'}", "", *_wrapped(inspect.getdoc(kind) or ""), ""]
    inner = []
    for field in dataclasses.fields(kind):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            inner.append((type(value), value, f"{prefix}{field.name}."))
        else:
            hint = typing.get_type_hints(kind)[field.name]
            what = f"`{prefix}{field.name}`: {_type(field, hint)}; default {_default(field, value)}."
            lines += _wrapped(f"{what} {_sentence(meaning(kind, field.name))}", "- ")
            if field.name == "mode":
                lines += [
                    line for mode, does in MODES.items() for line in _wrapped(f"`{mode}`: {_ended(does)}", "  - ")
                ]
    for one in inner:
        lines += ["", *_section(*one)]
    return lines


def _type(field: dataclasses.Field, hint: Any) -> str:
    """A field's type with its choices or bounds, in words."""
    metadata = field.metadata
    if "choices" in metadata:
        return " | ".join(f"`{choice}`" for choice in metadata["choices"])
    if isinstance(hint, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
        return f"{_type(field, hint)}, or `None`"
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        order = "ascending " if metadata.get("ascending") else ""
        return f"tuple of {order}{_PLAIN[element]}s{_bounds(metadata, element)}"
    if metadata.get("path"):
        return "file, folder or name"
    return f"{_PLAIN[hint]}{_bounds(metadata, hint)}"


def _bounds(metadata: typing.Mapping[str, Any], hint: type) -> str:
    words = []
    for name, word in (("low", "from"), ("above", "above"), ("most", "to"), ("below", "below")):
        if metadata.get(name) is not None and metadata[name] != MOST:
            words.append(
                f"{word} {metadata[name]:,}" if isinstance(metadata[name], int) else f"{word} {metadata[name]:g}"
            )
    return f" {' '.join(words)}" if words else ""


def _default(field: dataclasses.Field, value: Any) -> str:
    return "empty" if value == "" else f"`{value!r}`" if not isinstance(value, str) else f"`{value}`"


def _sentence(text: str) -> str:
    """With a capital where it begins with a plain word, not with the name of a value."""
    first = text.partition(" ")[0]
    return _ended(text[:1].upper() + text[1:] if first.isalpha() else text)


def _ended(text: str) -> str:
    return text if text.endswith((".", "?")) or not text else f"{text}."


def _wrapped(text: str, bullet: str = "") -> list[str]:
    text = " ".join(text.split())
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
