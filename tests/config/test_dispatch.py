"""Every value of every setting with choices is dispatched by name: none is taken for another in silence."""

import importlib

import pytest

from tests.config.test_fields import FIELDS
from wpauc_jax import modes

CHOICES = {name: field.metadata["choices"] for name, (_, field, _) in FIELDS.items() if "choices" in field.metadata}

# The dict that has an entry for each value of a setting.
DICTS = {
    "mode": "wpauc_jax.config.run.MODES",
    "data.source": "wpauc_jax.data.sources.READERS",
    "model.attention": "wpauc_jax.models.decoder.CAUSAL_ATTENTION",
}

# Values that never reach the dict, since something before it deals with them.
BEFORE = {
    "data.source": {"auto", "synthetic"},  # the one becomes another name by detection; the other reads no file
}

# Settings that are no matter of a dict, and why.
REASONS = {
    "model.dtype": "the names are NumPy's",
    "model.param_dtype": "the names are NumPy's",
    "export.dtype": "the names are NumPy's",
}


def entries(dotted):
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", CHOICES)
def test_every_value_has_an_entry(name):
    assert (name in DICTS) != (name in REASONS), f"{name} needs a dict with an entry a value, or a reason"
    if name in DICTS:
        assert set(entries(DICTS[name])) == set(CHOICES[name]) - BEFORE.get(name, set())


def test_no_line_is_out_of_date():
    assert {*DICTS, *REASONS} <= set(CHOICES)
    assert all(values <= set(CHOICES[name]) for name, values in BEFORE.items())


def test_every_mode_is_a_function_and_says_who_else_may_be_at_work():
    """compile_check has no work directory."""
    assert set(modes.MODES) | {"compile_check"} == set(CHOICES["mode"])
    assert set(modes.LOCKS) == set(CHOICES["mode"]) - {"compile_check"}
