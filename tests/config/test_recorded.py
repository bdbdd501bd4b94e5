"""Records of earlier versions: a setting that they lack counts as its default, an old spelling as the new one."""

import json

import pytest

from wpauc_jax.config import EvalConfig, RlConfig
from wpauc_jax.config.recorded import differences, recorded_config, unlike_defaults, value_of


def test_equal_records_are_equal_after_json_too():
    now = {"eval": {"recall_at": (1, 3), "num_beams": 20}, "catalog": {"fingerprint": "c0ffee"}}
    assert differences(now, now) == differences(json.loads(json.dumps(now)), now) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"rl": {"target_k": 3, "std": "sample"}}, []),  # the default
        ({"rl": {"target_k": 3, "std": "none"}}, ["rl.std: 'sample' then, 'none' now"]),
        ({"rl": {"target_k": 3, "anchor": None}}, []),
        ({"rl": {"target_k": 3, "optim": {"max_grad_norm": 0.3}}}, []),  # a stage's own default, not the optimiser's
        ({"rl": {"target_k": 3, "optim": {"max_grad_norm": 1.0}}}, ["rl.optim.max_grad_norm: 0.3 then, 1.0 now"]),
        ({"rl": {"target_k": 3}, "eval": {"recall_at": EvalConfig().recall_at}}, []),
        ({"rl": {"target_k": 3}, "data": {"fingerprint": "x"}}, ["data.fingerprint: absent then, 'x' now"]),
        ({"rl": {"target_k": 5}}, ["rl.target_k: 3 then, 5 now"]),
    ],
)
def test_what_an_old_record_lacks_counts_as_its_default(now, expected):
    assert RlConfig().std == "sample" and RlConfig().anchor is None
    assert differences({"rl": {"target_k": 3}}, now) == expected


def test_what_is_no_setting_any_more_still_counts_unless_it_is_left_out():
    assert differences({"rl": {"gone": 1}}, {}) == ["rl.gone: 1 then, absent now"]
    assert differences({"rl": {"gone": 1}}, {}, only=True) == []


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ("catalogue", "catalog", []),
        ("catalog", "catalog", []),
        ("catalogue", "lm", ["sft.loss: 'catalog' then, 'lm' now"]),
        ("lm", "lm", []),
    ],
)
def test_an_old_spelling_is_the_new_one(before, now, expected):
    assert differences({"sft": {"loss": before}}, {"sft": {"loss": now}}) == expected
    assert value_of({"sft.loss": before}, "sft.loss") == ("lm" if before == "lm" else "catalog")
    assert value_of({"rl.kind": "catalogue"}, "rl.kind") == "catalogue"  # no spelling of that setting


def test_a_setting_that_is_gone_gives_way_to_the_one_in_its_place():
    for before, now in ((True, "tensorboard"), (False, "none")):
        assert recorded_config({"seed": 2, "tensorboard": before}).tracking == now
    assert unlike_defaults({"tensorboard": True, "exclude_history": "auto"}) == {"tracking": ("tensorboard", "none")}


def test_settings_that_are_not_the_defaults():
    record = {"rl": {"target_k": 4, "anchor": None}, "sft": {"loss": "catalogue"}, "exclude_history": "auto"}
    assert unlike_defaults(record)["rl.target_k"] == (4, 3) and "rl.anchor" not in unlike_defaults(record)
    assert "exclude_history" in unlike_defaults({})  # a record without it is of a time when every item was ranked
