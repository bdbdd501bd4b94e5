"""The documentation as a site: it is built without a warning, and its links lead somewhere."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import wpauc_jax
from docs.site_hooks import site_links
from wpauc_jax import objectives

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("README.md", "[a](docs/data.md#times)", "[a](data.md#times)"),
        ("docs/python.md", "[a](data.md) [b](#c)", "[a](data.md) [b](#c)"),
        ("docs/design.md", "[map](../README.md#the-folders)", "[map](index.md#the-folders)"),
        ("docs/design.md", "[code](../wpauc_jax/data/)", "code"),
        ("docs/theory.md", "![a](figures/a.png) [b](https://example.org/x.md)", None),
    ],
)
def test_links_become_those_of_the_site(source, text, expected):
    assert site_links(text, source) == (text if expected is None else expected)


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    page = (tmp_path / "api" / "objectives.html").read_text(encoding="utf-8")
    assert all(f'id="wpauc_jax.objectives.{name}"' in page for name in objectives.__all__)
    page = (tmp_path / "api" / "python.html").read_text(encoding="utf-8")
    assert all(f'id="wpauc_jax.api.{name}"' in page for name in wpauc_jax.__all__)
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="theory.html"' in start and (tmp_path / "figures" / "pipeline.svg").is_file()
    assert re.search(r'<img[^>]*src="figures/quickstart.png"', start)
