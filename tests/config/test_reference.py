"""docs/settings.md is what the dataclasses say."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from tests.config.test_fields import FIELDS
from wpauc_jax.config.fields import Checked, at_least
from wpauc_jax.config.reference import meaning, reference

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "wpauc_jax.config"], cwd=PAGE.parents[1], capture_output=True, text=True, check=True
    )
    assert PAGE.read_text() == printed.stdout, "python -m wpauc_jax.config > docs/settings.md"


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_means(name):
    kind, field, _ = FIELDS[name]
    assert len(meaning(kind, field.name).split()) > 1, f"{name} needs a comment beside it or above it"


def test_the_page_names_every_setting_and_is_narrow():
    page = reference()
    for name in FIELDS:
        assert page.count(f"\n- `{name}`: ") == 1
    assert max(map(len, page.splitlines())) <= 120
    assert "- `rl.target_k`: whole number from 1 to 10,000; default `3`. The K of the Recall@K" in page
    assert "- `rl.optim.b1`: number from 0 below 1; default `0.9`." in page


@dataclasses.dataclass(frozen=True)
class Base(Checked):
    """A base."""

    one: int = at_least(1, 1)  # what one means


@dataclasses.dataclass(frozen=True)
class Own(Base):
    """A class of a test's own."""

    # Above, in
    # two lines.
    two: str = ""
    three: tuple[int, ...] = (
        1,
        2,
    )  # behind several lines
    four: str = "#"
    # above
    five: str = ""  # and beside


def test_a_meaning_stands_beside_its_field_or_above_it():
    assert [meaning(Own, name) for name in ("one", "two", "three", "four", "five")] == [
        "what one means",
        "Above, in two lines.",
        "behind several lines",
        "",
        "above and beside",
    ]
