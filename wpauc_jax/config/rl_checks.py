"""Which settings of RL go together. A setting that has no effect beside another one is refused, never ignored."""

from typing import Any

from wpauc_jax.config.fields import ConfigError
from wpauc_jax.config.useless import Useless, refuse_useless

KINDS_OF = {  # by `rl.estimator`: each `rl.kind` that it knows
    "sampled": ("grpo", "dapo", "gspo", "dr_grpo", "sdpo"),
    "exact": ("grpo", "dr_grpo", "gce", "soft_topk"),
}


_EXACT = "rl.estimator='exact'"
USELESS = (
    Useless(
        lambda rl: rl.estimator == "exact",
        _EXACT,
        "which has no candidates to push, to weigh or to measure a distance on",
        {
            "kl_coef": 0.0,
            "ref_sync_steps": 0,
            "ref_sync_mix": 0.6,
            "negatives": "beam",
            "negative_scale": 1.0,
            "weighting": "tawin",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "bound_negatives": False,
            "sibling_coef": 0.0,
            "sibling_mix": 0.0,
            "reward": "binary",
            "false_negatives": "keep",
        },
    ),
    Useless(lambda rl: rl.estimator == "exact", _EXACT, "to which no row is dead", {"dead_groups": "keep"}),
    Useless(lambda rl: rl.estimator == "exact", _EXACT, "which always looks at the target", {"inject_target": "never"}),
    Useless(
        lambda rl: not rl.searches_groups,
        _EXACT,
        "which has a group and a window where rl.kind='soft_topk' and rl.threshold='window' alone",
        {"group_size": 16, "anchor": None, "temperature": 1.0, "mass": 1.0, "rank_scale": "rank"},
    ),
    Useless(
        lambda rl: rl.kind != "soft_topk",
        "rl.kind is another one than 'soft_topk'",
        "as only that one compares the target with a threshold",
        {"threshold": "beam", "soft_form": "likelihood", "softness": 1.0},
    ),
    Useless(
        lambda rl: rl.kind != "gce", "rl.kind is another one than 'gce'", "as only that one has a power", {"q": 0.5}
    ),
    Useless(
        lambda rl: rl.kind == "sdpo",
        "rl.kind='sdpo'",
        "which has a reference of its own, and neither advantages nor ratios",
        {
            "kl_coef": 0.0,
            "weighting": "none",
            "negative_scale": 1.0,
            "std": "sample",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "bound_negatives": False,
            "sibling_coef": 0.0,
            "reward": "binary",
        },
    ),
    Useless(
        lambda rl: rl.kind != "sdpo", "rl.kind is another one than 'sdpo'", "as only that one has it", {"dpo_beta": 1.0}
    ),
    Useless(lambda rl: rl.weighting != "trimmed", "rl.weighting is another one than 'trimmed'", "", {"trim_top": 0.1}),
    Useless(lambda rl: not rl.sibling_mix, "rl.sibling_mix=0", "", {"sibling_depth": 1}),
    Useless(
        lambda rl: rl.reward != "combined",
        "rl.reward is another one than 'combined'",
        "",
        {"reward_weights": (1.0, 0.0, 0.0, 0.0)},
    ),
    Useless(
        lambda rl: "collaborative" not in rl.weights_of_rewards, "no reward is collaborative", "", {"reward_from": ""}
    ),
    Useless(lambda rl: rl.false_negatives == "keep", "rl.false_negatives='keep'", "", {"false_negative": "title"}),
    Useless(
        lambda rl: rl.false_negatives != "reward",
        "rl.false_negatives is another one than 'reward'",
        "",
        {"false_negative_reward": 1.0},
    ),
    Useless(
        lambda rl: rl.false_negative != "embedding",
        "rl.false_negative is another one than 'embedding'",
        "",
        {"false_negative_cosine": 0.95},
    ),
    Useless(
        lambda rl: rl.kind in ("gce", "soft_topk"),
        "rl.kind is 'gce' or 'soft_topk'",
        "as neither has advantages",
        {"std": "sample"},
    ),
)


def check_rl(rl: Any) -> None:
    """Raises ConfigError for settings of RL that cannot go together, or of which one has no effect."""
    _check_kind(rl)
    refuse_useless(rl, "rl", USELESS)
    if rl.searches_groups:
        _check_group(rl)
    _check_rewards(rl)
    _check_targets(rl)
    if rl.kind == "sdpo" and (rl.inject_target == "never" and rl.negatives != "random"):
        raise ConfigError(
            f"rl.kind='sdpo' compares the target with others, and rl.negatives={rl.negatives!r} may miss it: set "
            "rl.inject_target='if_missing'"
        )
    if rl.hints and (rl.nll or rl.targets > 1 or rl.num_siblings or rl.negatives == "random" or rl.kind == "sdpo"):
        raise ConfigError(
            "rl.inject_target='hint' has a loss for the hint, and one target: set rl.nll=0, rl.targets=1, "
            "rl.sibling_mix=0, rl.negatives='beam' or 'sample', and another rl.kind than 'sdpo'"
        )
    if rl.kind == "sdpo" and (rl.targets > 1 or rl.false_negatives == "reward"):
        raise ConfigError("rl.kind='sdpo' prefers one target: set rl.targets=1, and rl.false_negatives to keep or mask")
    if rl.kind == "gspo" and (rl.sibling_coef or rl.bound_negatives):
        raise ConfigError(
            "rl.kind='gspo' has one ratio for a whole item: set rl.sibling_coef=0 and rl.bound_negatives=False, which "
            "tell an item's tokens apart"
        )
    if rl.kind == "dr_grpo" and rl.std != "none":
        raise ConfigError(f"rl.kind='dr_grpo' has no standard deviation: set rl.std='none' (it is {rl.std!r})")
    if rl.rows == "latest" and not 0 < rl.holdout < 1:
        raise ConfigError(f"rl.holdout={rl.holdout} must lie between 0 and 1 when rl.rows='latest'")


def _check_kind(rl: Any) -> None:
    known = KINDS_OF[rl.estimator]
    if rl.kind not in known:
        other = next(name for name, kinds in KINDS_OF.items() if rl.kind in kinds)
        raise ConfigError(
            f"rl.kind={rl.kind!r} is none of rl.estimator={rl.estimator!r}, which knows {', '.join(known)}; "
            f"set one of these, or rl.estimator={other!r}"
        )


def _check_group(rl: Any) -> None:
    if rl.target_k >= rl.group_size:
        raise ConfigError(
            f"rl.target_k={rl.target_k} needs a negative of rank {rl.target_k - 1} in the group, "
            f"but rl.group_size={rl.group_size}; enlarge the group or lower target_k"
        )
    if rl.anchor_rank > rl.group_size - 2:
        raise ConfigError(
            f"rl.anchor={rl.anchor} is beyond the last negative: rl.group_size={rl.group_size} has ranks 0 to "
            f"{rl.group_size - 2}"
        )
    if rl.sibling_mix and not rl.num_siblings:
        raise ConfigError(
            f"rl.sibling_mix={rl.sibling_mix} of the {rl.group_size - 1} others in a group is no item; raise it or set "
            "rl.sibling_mix=0"
        )
    if rl.dead_groups == "compact":
        _check_compact(rl)


def _check_rewards(rl: Any) -> None:
    if len(rl.reward_weights) != 4 or not any(rl.reward_weights):
        raise ConfigError(
            f"rl.reward_weights={rl.reward_weights!r} must be four numbers, not all 0: the weights of binary, ranking, "
            "semantic and collaborative"
        )
    if "collaborative" in rl.weights_of_rewards and not rl.reward_from:
        raise ConfigError(
            "rl.reward_from is empty; a collaborative reward needs the work directory of a run whose items are one "
            "token each (catalog.ids='atomic')"
        )
    binary = rl.reward == "binary" and rl.false_negative_reward == 1.0
    if rl.estimator == "sampled" and not binary and rl.weighting != "none":
        given = f"rl.reward={rl.reward!r}" if rl.reward != "binary" else "rl.false_negative_reward below 1"
        raise ConfigError(
            f"rl.weighting={rl.weighting!r} weighs negatives, which only a reward of 1 or 0 tells from positives: "
            f"{given} needs rl.weighting='none'"
        )
    if rl.false_negatives == "reward" and rl.reward != "binary":
        raise ConfigError(
            f"rl.false_negatives='reward' needs rl.reward='binary' (it is {rl.reward!r}), which it corrects; set "
            "rl.false_negatives='mask'"
        )


def _check_targets(rl: Any) -> None:
    if rl.targets > rl.target_k:
        raise ConfigError(
            f"rl.targets={rl.targets} is more than rl.target_k={rl.target_k}: the window of Recall@K begins at rank "
            "target_k minus targets; lower rl.targets or raise rl.target_k"
        )
    if rl.targets > 1 and rl.kind == "soft_topk":
        raise ConfigError(f"rl.kind='soft_topk' compares one target: set rl.targets=1 (it is {rl.targets})")


def _check_compact(rl: Any) -> None:
    if rl.targets > 1 or rl.false_negatives != "keep" or rl.reward not in ("binary", "ranking"):
        raise ConfigError(
            "rl.dead_groups='compact' needs rl.targets=1, rl.false_negatives='keep' and rl.reward='binary' or "
            "'ranking': otherwise a group without its target may teach"
        )
    if rl.kl_coef > 0 or rl.inject_target != "never":
        raise ConfigError(
            "rl.dead_groups='compact' needs rl.kl_coef=0 and rl.inject_target='never': a KL term has a gradient in "
            "every group, and a group with its target put in is never dead"
        )
    if rl.kind == "sdpo":
        raise ConfigError("rl.dead_groups='compact' needs another rl.kind than 'sdpo', in which no group is dead")
    if rl.nll > 0:
        raise ConfigError(
            f"rl.dead_groups='compact' needs rl.nll=0 (it is {rl.nll}): every target's likelihood has a gradient"
        )
    if rl.microbatches > 1:
        raise ConfigError(
            f"rl.dead_groups='compact' needs rl.microbatches=1 (it is {rl.microbatches}): it looks for living "
            "groups in the whole batch"
        )
    if rl.dropout > 0:
        raise ConfigError(
            f"rl.dead_groups='compact' needs rl.dropout=0 (it is {rl.dropout}): it runs prompts twice, and each "
            "time others would be dropped"
        )
