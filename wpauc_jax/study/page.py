"""A page of headings, text, tables, pictures and commands, as Markdown and as one HTML file that needs nothing else."""

import base64
import dataclasses
import html
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from wpauc_jax.runtime.files import atomic_path


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    text: str
    level: int = 2


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
    """Rows of as many cells as the header has; all but the first column are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file, with what it shows."""

    path: pathlib.Path
    caption: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Commands or file names, as they are typed."""

    text: str


Block = Heading | Text | Points | Table | Picture | Code


def write_markdown(path: pathlib.Path, blocks: Sequence[Block]) -> None:
    """Writes the page as Markdown; pictures are links from the page's folder on."""
    text = "\n\n".join(_MARKDOWN[type(block)](block, path.parent) for block in blocks) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_html(path: pathlib.Path, title: str, blocks: Sequence[Block]) -> None:
    """Writes the page as one HTML file, which holds its pictures and can be read on a narrow screen."""
    body = "\n".join(_HTML[type(block)](block) for block in blocks)
    text = _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def _table_html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _picture_html(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


_HTML: dict[type, Callable[[Any], str]] = {
    Heading: lambda block: f"<h{block.level}>{html.escape(block.text)}</h{block.level}>",
    Text: lambda block: f"<p>{html.escape(block.text)}</p>",
    Points: lambda block: "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in block.lines) + "</ul>",
    Table: _table_html,
    Picture: _picture_html,
    Code: lambda block: f'<pre class="wide">{html.escape(block.text)}</pre>',
}

_STYLE = """
body { font: 16px/1.5 sans-serif; color: #1a1a1a; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.25; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; white-space: nowrap; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 0.9rem; }
pre { background: #f5f5f5; padding: 0.6rem; font-size: 0.8rem; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
