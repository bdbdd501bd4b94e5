"""Every value of every setting with choices is dispatched by name: none is taken for another in silence."""

import importlib

import pytest

from tests.config.test_fields import FIELDS
from wpauc_jax import modes
from wpauc_jax.config import run as config_run
from wpauc_jax.config.rl_checks import KINDS_OF

CHOICES = [name for name, (_, field, _) in FIELDS.items() if "choices" in field.metadata]

# The dict that has an entry for each value of a setting; of several, each value has one in one of them at least.
DICTS = {
    "mode": "wpauc_jax.modes.MODES",
    "scoring": "wpauc_jax.decode.scoring.SCORING",
    "exclude_history": "wpauc_jax.stages.history.RULES",
    "tracking": "wpauc_jax.runtime.trackers.TRACKERS",
    "data.source": "wpauc_jax.data.sources.READERS",
    "data.time_unit": "wpauc_jax.data.times.UNITS",
    "data.bad_rows": "wpauc_jax.data.errors.POLICIES",
    "data.changed": "wpauc_jax.data.prepare.CHANGED",
    "data.repeats": "wpauc_jax.data.filters.REPEATS",
    "data.split": "wpauc_jax.data.splits.SPLITTERS",
    "catalog.ids": "wpauc_jax.catalog.build.IDS",
    "prompt.style": "wpauc_jax.batches.prompts.STYLES",
    "prompt.history": "wpauc_jax.batches.prompts.HISTORIES",
    "model.family": "wpauc_jax.models.policy.FAMILIES",
    "model.rope_scaling.kind": "wpauc_jax.models.rope.SCALING",
    "model.layers": "wpauc_jax.models.layers.LAYERS",
    "model.remat": "wpauc_jax.models.layers.REMAT",
    "model.gather": "wpauc_jax.models.policy.GATHERED",
    "model.attention": "wpauc_jax.models.decoder.CAUSAL_ATTENTION",
    "model.new_rows": "wpauc_jax.stages.first_model.NEW_ROWS",
    "sft.optim.schedule": "wpauc_jax.training.optim.SCHEDULES",
    "rl.optim.schedule": "wpauc_jax.training.optim.SCHEDULES",
    "sft.optim.first_moment": "wpauc_jax.training.optim.FIRST_MOMENT",
    "rl.optim.first_moment": "wpauc_jax.training.optim.FIRST_MOMENT",
    "sft.faults.action": "wpauc_jax.training.loop.FAULT_ACTIONS",
    "sft.loss": "wpauc_jax.training.sft.SFT_SCORING",
    "sft.objective": "wpauc_jax.training.sft.OBJECTIVES",
    "rl.faults.action": "wpauc_jax.training.loop.FAULT_ACTIONS",
    "rl.rows": "wpauc_jax.stages.workspace.RL_ROWS",
    "rl.negatives": "wpauc_jax.decode.groups.NEGATIVES",
    "rl.reward": "wpauc_jax.training.judge.REWARDS",
    "rl.false_negatives": "wpauc_jax.training.judge.VERDICTS",
    "rl.false_negative": "wpauc_jax.training.judge.FALSE_NEGATIVES",
    "rl.inject_target": "wpauc_jax.decode.groups.INJECTED",
    "rl.weighting": "wpauc_jax.training.groups.WEIGHTING",
    "rl.rank_scale": "wpauc_jax.objectives.tawin.RANK_SCALES",
    "rl.estimator": "wpauc_jax.training.rl.ESTIMATORS",
    "rl.kind": ("wpauc_jax.training.groups.LOSSES", "wpauc_jax.training.exact.OBJECTIVES"),
    "rl.threshold": "wpauc_jax.training.exact.THRESHOLDS",
    "rl.soft_form": "wpauc_jax.objectives.soft.SOFT_FORMS",
    "eval.search": "wpauc_jax.stages.run.SEARCHES",
    "rl.std": "wpauc_jax.objectives.masked.STD_RULES",
    "rl.dead_groups": "wpauc_jax.training.rl.GRADIENTS",
    "recommend.unknown": "wpauc_jax.batches.histories.UNKNOWN",
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

# Further dicts that must have an entry for each value of a setting.
ALSO = {"model.rope_scaling.kind": ["wpauc_jax.models.hf_config._ROPE_PARAMETERS"]}


def entries(dotted):
    """The names of one dict, or of several."""
    if isinstance(dotted, tuple):
        return set().union(*map(entries, dotted))
    module, _, name = dotted.rpartition(".")
    return set(getattr(importlib.import_module(module), name))


def choices(name):
    return set(FIELDS[name][1].metadata["choices"])


@pytest.mark.parametrize("name", CHOICES)
def test_every_value_has_an_entry(name):
    assert (name in DICTS) != (name in REASONS), f"{name} needs a dict with an entry a value, or a reason"
    if name in DICTS:
        for where in (DICTS[name], *ALSO.get(name, [])):
            assert entries(where) == choices(name) - BEFORE.get(name, set()), where


def test_each_estimator_knows_its_kinds():
    """The settings refuse a kind that the dict of the estimator lacks."""
    dicts = dict(zip(("sampled", "exact"), DICTS["rl.kind"], strict=True))
    assert {name: set(kinds) for name, kinds in KINDS_OF.items()} == {
        name: entries(where) for name, where in dicts.items()
    }
    assert set(KINDS_OF) == choices("rl.estimator")


def test_no_line_is_out_of_date():
    assert {*DICTS, *REASONS} <= set(CHOICES)
    assert all(values <= choices(name) for name, values in BEFORE.items())


def test_every_mode_is_described_and_says_who_else_may_be_at_work():
    """compile_check has no work directory."""
    assert set(config_run.MODES) == choices("mode") == set(modes.MODES)
    assert {name for name, mode in modes.MODES.items() if mode.lock is None} == {"compile_check"}
