"""What `mkdocs build` calls: the README becomes the first page, and the API's pages are made.

On the site a link to a page of `docs/` leads to that page. A link to any other file of the repository has nowhere to
lead, so its text alone stays.
"""

import pathlib
import posixpath
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
API = {
    "api/python.md": (
        "Python",
        "wpauc_jax.api",
        "`wpauc_jax.run` and `wpauc_jax.Recommender` stand here. [How to use them](../python.md).",
    ),
    "api/objectives.md": (
        "Objectives",
        "wpauc_jax.objectives",
        "For any Flax or JAX code. [What they mean](../theory.md).",
    ),
}


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are no files of docs/."""
    from mkdocs.structure.files import File  # here, so that the rest needs no MkDocs

    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace('src="docs/', 'src="')
    made = {"index.md": re.sub(r"(!\[[^]]*\]\()docs/", r"\1", site_links(readme, "README.md"))}
    for page, (title, module, text) in API.items():
        made[page] = f"# {title}\n\n{text}\n\n::: {module}\n"
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The links of a page of docs/, as the site has them."""
    source = page.file.src_uri
    return markdown if source == "index.md" or source in API else site_links(markdown, f"docs/{source}")


def site_links(markdown: str, source: str) -> str:
    """`markdown` with links that lead to pages of the site; `source` is its path in the repository."""

    def replaced(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path == "README.md":
            return f"[{text}](index.md{anchor})"
        if path.startswith("docs/"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})"
        return text

    return LINK.sub(replaced, markdown)
