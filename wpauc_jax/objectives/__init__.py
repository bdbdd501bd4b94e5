"""Formulas on arrays: from GRPO to windowed partial AUC.

Advantages, weightings, losses and metrics belong here. Models, data and files do not: a module here imports JAX and
nothing else, so that anybody can use it alone.

Every function works under jit, vmap, grad and shard_map. It takes any leading axes, and a `where` mask of exactly the
values' shape. It reads float32 and bfloat16 and returns at least float32. Values and gradients are finite for empty,
one-sided and fully masked groups. docs/theory.md explains how the functions hang together.
"""

from wpauc_jax.objectives.advantage import group_advantages, rloo_advantages
from wpauc_jax.objectives.exact import exact_group_loss, gce_loss
from wpauc_jax.objectives.masked import Total
from wpauc_jax.objectives.metrics import (
    auc,
    llpauc,
    ndcg_at_k,
    opauc,
    partial_auc,
    recall_at_k,
    tpauc,
    wpauc,
    wpauc_window,
)
from wpauc_jax.objectives.minimax import LlpaucMax, LlpaucMin, llpauc_loss, llpauc_pairwise_loss
from wpauc_jax.objectives.pairwise import (
    catalog_cross_entropy,
    opauc_cvar_loss,
    opauc_kl_loss,
    opauc_top_loss,
    softmax_dpo_loss,
)
from wpauc_jax.objectives.pointwise import gbce_loss
from wpauc_jax.objectives.policy import PolicySums, policy_loss, policy_loss_sums, tawin_advantages, tawin_loss
from wpauc_jax.objectives.ranking import descending_ranks, negative_ranks
from wpauc_jax.objectives.rewards import cosine_reward, ranking_reward
from wpauc_jax.objectives.self_hard import self_hard_loss
from wpauc_jax.objectives.shares import gradient_sizes, shares_by_rank
from wpauc_jax.objectives.soft import soft_recall, soft_top_k_loss, top_k_threshold, window_threshold
from wpauc_jax.objectives.steps import bounded_negatives, prefix_loss, sibling_advantages
from wpauc_jax.objectives.tawin import policy_weights, soft_top_k, tawin_weights, window_weights

__all__ = [
    "LlpaucMax",
    "LlpaucMin",
    "PolicySums",
    "Total",
    "auc",
    "bounded_negatives",
    "catalog_cross_entropy",
    "cosine_reward",
    "descending_ranks",
    "exact_group_loss",
    "gbce_loss",
    "gce_loss",
    "gradient_sizes",
    "group_advantages",
    "llpauc",
    "llpauc_loss",
    "llpauc_pairwise_loss",
    "ndcg_at_k",
    "negative_ranks",
    "opauc",
    "opauc_cvar_loss",
    "opauc_kl_loss",
    "opauc_top_loss",
    "partial_auc",
    "policy_loss",
    "policy_loss_sums",
    "policy_weights",
    "prefix_loss",
    "ranking_reward",
    "recall_at_k",
    "rloo_advantages",
    "self_hard_loss",
    "shares_by_rank",
    "sibling_advantages",
    "soft_recall",
    "soft_top_k",
    "soft_top_k_loss",
    "softmax_dpo_loss",
    "tawin_advantages",
    "tawin_loss",
    "tawin_weights",
    "top_k_threshold",
    "tpauc",
    "window_threshold",
    "window_weights",
    "wpauc",
    "wpauc_window",
]
