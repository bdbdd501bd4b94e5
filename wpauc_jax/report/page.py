"""A page of headings, text, tables, pictures and commands, as Markdown and as one HTML file that needs nothing else."""

import base64
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2

from wpauc_jax.runtime.files import atomic_path

_TEMPLATE = "page.html.jinja"  # beside this file


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own. `anchor` is what a link to it names."""

    text: str
    level: int = 2
    anchor: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Points:
    """A list of sentences."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of as many cells as the header has. All but the first column are numbers, or else words that may wrap."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file, with what it shows."""

    path: pathlib.Path
    caption: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Commands or file names, as they are typed."""

    text: str


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture as SVG text, with what it shows."""

    svg: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Drawings side by side, as many as the screen is wide enough for."""

    drawings: Sequence[Drawing]


@dataclasses.dataclass(frozen=True)
class Entry:
    """An item of a list; `marked` where it is the one that was looked for."""

    text: str
    marked: bool = False


@dataclasses.dataclass(frozen=True)
class Card:
    """One user: what came before, what came next, and lists by their names."""

    title: str
    history: str
    target: str
    lists: Mapping[str, Sequence[Entry]]


@dataclasses.dataclass(frozen=True)
class Cards:
    """Users side by side, as many as the screen is wide enough for."""

    cards: Sequence[Card]


@dataclasses.dataclass(frozen=True)
class Links:
    """What the page holds: (text, anchor of a heading)."""

    links: Sequence[tuple[str, str]]


MarkdownBlock = Heading | Text | Points | Table | Picture | Code
Block = MarkdownBlock | Drawing | Gallery | Cards | Links


def write_markdown(path: pathlib.Path, blocks: Sequence[MarkdownBlock]) -> None:
    """Writes the page as Markdown; pictures are links from the page's folder on."""
    text = "\n\n".join(_MARKDOWN[type(block)](block, path.parent) for block in blocks) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_html(path: pathlib.Path, title: str, blocks: Sequence[Block], *, made_of: str = "") -> None:
    """Writes the page as one HTML file, which holds its pictures and can be read on a narrow screen and on paper.

    `made_of` tells what the page was made of; `made_of_what` reads it again.
    """
    text = _template().render(title=title, blocks=[(type(block).__name__, block) for block in blocks], made_of=made_of)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def made_of_what(path: pathlib.Path) -> str:
    """What `write_html` was told that the page was made of; empty where there is no page that says so."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(1000)
    except OSError:
        return ""
    return head.partition('<meta name="made-of" content="')[2].partition('"')[0]


def _table_markdown(table: Table, _: pathlib.Path) -> str:
    lines = [list(table.header), ["---"] + ["---:"] * (len(table.header) - 1), *map(list, table.rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


_MARKDOWN: dict[type, Callable[[Any, pathlib.Path], str]] = {
    Heading: lambda block, _: f"{'#' * block.level} {block.text}",
    Text: lambda block, _: block.text,
    Points: lambda block, _: "\n".join(f"- {line}" for line in block.lines),
    Table: _table_markdown,
    Picture: lambda block, folder: f"![{block.caption}]({os.path.relpath(block.path, folder)})\n\n{block.caption}",
    Code: lambda block, _: f"```\n{block.text}\n```",
}


@functools.cache
def _template() -> jinja2.Template:
    """The page's template, in which everything is escaped unless it is said to be sound."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = lambda path: _data("image/png", path.read_bytes())
    environment.filters["svg"] = lambda text: _data("image/svg+xml", text.encode())
    return environment.get_template(_TEMPLATE)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
