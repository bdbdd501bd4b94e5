"""Every value of every setting with choices is dispatched by name: none is taken for another in silence."""

import importlib

import pytest

from tests.config.test_fields import FIELDS
from wpauc_jax.config import Config

CHOICES = {name: field.metadata["choices"] for name, (_, field, _) in FIELDS.items() if "choices" in field.metadata}

# The dict that has an entry for each value of a setting.
DICTS = {
    "mode": "wpauc_jax.config.run.MODES",
}

# Settings that are no matter of a dict, and why.
REASONS: dict[str, str] = {}


def entries(dotted):
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", CHOICES)
def test_every_value_has_an_entry(name):
    assert (name in DICTS) != (name in REASONS), f"{name} needs a dict with an entry a value, or a reason"
    if name in DICTS:
        assert set(entries(DICTS[name])) == set(CHOICES[name])


def test_no_line_is_out_of_date():
    assert {*DICTS, *REASONS} <= set(CHOICES)
    assert Config().mode in CHOICES["mode"]
