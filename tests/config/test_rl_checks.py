"""Settings of RL that have no effect are refused, each by name."""

import dataclasses

import pytest

from wpauc_jax.config import Config, ConfigError, RlConfig, SftConfig
from wpauc_jax.config.rl_checks import USELESS

EXACT = RlConfig(estimator="exact", kl_coef=0.0)
# By setting: another value than the one that is let pass, and settings beside it that it would need elsewhere.
OTHERS = {
    "kl_coef": 0.1,
    "ref_sync_steps": 5,
    "ref_sync_mix": 0.5,
    "negatives": "sample",
    "negative_scale": 0.5,
    "weighting": "none",
    "clip_low": 0.1,
    "clip_high": 0.3,
    "dead_groups": "compact",
    "inject_target": "always",
    "group_size": 8,
    "anchor": 1,
    "temperature": 2.0,
    "mass": 2.0,
    "rank_scale": "log",
    "threshold": "exact",
    "soft_form": "surrogate",
    "softness": 2.0,
    "q": 0.1,
    "std": "none",
    "bound_negatives": True,
    "sibling_coef": 0.5,
    "sibling_mix": 0.5,
    "reward": "ranking",
    "false_negatives": "mask",
    "trim_top": 0.2,
    "sibling_depth": 2,
    "reward_weights": (1.0, 1.0, 0.0, 0.0),
    "reward_from": "elsewhere",
    "false_negative": "later",
    "false_negative_reward": 0.5,
    "false_negative_cosine": 0.5,
    "dpo_beta": 0.5,
}
# Of the sampled estimator: settings of which each needs another one.
SAMPLED = (
    *("threshold", "soft_form", "softness", "q", "trim_top", "sibling_depth", "reward_weights", "reward_from"),
    *("false_negative", "false_negative_reward", "false_negative_cosine"),
)
SDPO = {"kl_coef": 0.0, "weighting": "none", "inject_target": "if_missing"}
OF_EXACT = {name for case in USELESS for name in case.values if case.where(EXACT)}


def test_the_values_that_are_let_pass_are_the_defaults():
    """But for the KL term, which an exact estimator cannot have, and TAWin's window, which S-DPO has not either."""
    values = [(name, value) for case in USELESS for name, value in case.values.items()]
    plain = RlConfig()
    assert {name for name, value in values if getattr(plain, name) != value} == {"kl_coef", "weighting"}
    assert {name for name, _ in values} <= set(OTHERS)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_group_takes_nothing_that_another_setting_does_not_ask_for(name):
    with pytest.raises(ConfigError, match=rf"^rl\.{name}=.* means nothing where .*; set rl\.{name}="):
        RlConfig(**{name: OTHERS[name]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reward": "ranking"},
            r"'tawin' weighs negatives.* rl.reward='ranking' needs rl.weighting='none'",
        ),
        ({"reward": "semantic", "weighting": "window"}, "rl.reward='semantic' needs rl.weighting='none'"),
        ({"false_negatives": "reward", "false_negative_reward": 0.5}, "below 1 needs rl.weighting='none'"),
        ({"reward": "collaborative", "weighting": "none"}, "rl.reward_from is empty"),
        ({"reward": "combined", "weighting": "none", "reward_weights": (1.0, 2.0)}, "must be four numbers"),
        ({"reward": "combined", "weighting": "none", "reward_weights": (0.0,) * 4}, "not all 0"),
        ({"reward": "ranking", "weighting": "none", "false_negatives": "reward"}, "set rl.false_negatives='mask'"),
        ({"sibling_mix": 0.01}, "rl.sibling_mix=0.01 of the 15 others in a group is no item"),
        ({"targets": 4}, "rl.targets=4 is more than rl.target_k=3"),
        ({"kind": "sdpo", **SDPO, "inject_target": "never"}, "set rl.inject_target='if_missing'"),
        ({"kind": "sdpo", **SDPO, "targets": 2}, "rl.kind='sdpo' prefers one target"),
        ({"kind": "sdpo", **SDPO, "weighting": "tawin"}, "rl.weighting='tawin' means nothing where rl.kind='sdpo'"),
        ({"kind": "sdpo", **SDPO, "kl_coef": 0.1}, "rl.kl_coef=0.1 means nothing where rl.kind='sdpo'"),
        ({"dpo_beta": 0.5}, "rl.dpo_beta=0.5 means nothing where rl.kind is another one than 'sdpo'"),
        ({"kind": "gspo", "bound_negatives": True}, "rl.kind='gspo' has one ratio for a whole item"),
        ({"dead_groups": "compact", "kl_coef": 0.0, "targets": 2}, "a group without its target may teach"),
        ({"estimator": "exact", "kl_coef": 0.0, "kind": "soft_topk", "targets": 2}, "compares one target"),
    ],
)
def test_what_cannot_go_together_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        RlConfig(**changes)


@pytest.mark.parametrize("name", sorted(OF_EXACT))
def test_an_exact_estimator_takes_nothing_that_it_does_not_use(name):
    with pytest.raises(ConfigError, match=rf"^rl\.{name}=.* means nothing where .*; set rl\.{name}="):
        dataclasses.replace(EXACT, **{name: OTHERS[name]})


@pytest.mark.parametrize(("name", "kind"), [("q", "soft_topk"), ("std", "gce"), ("std", "soft_topk")])
def test_each_kind_takes_its_own_settings_alone(name, kind):
    with pytest.raises(ConfigError, match=rf"^rl\.{name}=.* means nothing where rl\.kind is"):
        dataclasses.replace(EXACT, kind=kind, **{name: OTHERS[name]})


def test_what_is_used_is_taken():
    window = {"kind": "soft_topk", "threshold": "window", "softness": 2.0, "soft_form": "surrogate"}
    dataclasses.replace(EXACT, **window, group_size=8, anchor=1, temperature=2.0, mass=2.0, rank_scale="log")
    dataclasses.replace(EXACT, kind="gce", q=0.1)
    dataclasses.replace(EXACT, kind="dr_grpo", std="none")
    dataclasses.replace(EXACT, targets=2)
    RlConfig(reward="combined", weighting="none", reward_weights=(1, 0, 0.5, 0.1), reward_from="elsewhere")
    RlConfig(false_negatives="reward", false_negative="embedding", false_negative_cosine=0.5)
    RlConfig(weighting="trimmed", trim_top=0.2, sibling_mix=0.5, sibling_depth=2, sibling_coef=0.5, targets=3)


def test_two_beginnings_are_one_too_many():
    with pytest.raises(ConfigError, match=r"sft\.start_from='b' means nothing beside sft_from='a'"):
        Config(sft_from="a", sft=SftConfig(start_from="b"))
