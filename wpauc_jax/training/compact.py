"""The gradient of an RL step, computed only from groups that have one: `rl.dead_groups=compact`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.config import RlConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.models import Frozen, Params
from wpauc_jax.training.groups import group_sums, groups_of, rolled_out
from wpauc_jax.training.judge import Judge
from wpauc_jax.training.state import Metrics
from wpauc_jax.training.teaching import exact_ranks, listed_ranks, teaching_metrics


def compact_gradient(
    ranker: Ranker,
    trained: Params,
    frozen: Frozen,
    *,
    ref_params: Params | None,
    batch: RlBatch,
    key: jax.Array,
    config: RlConfig,
    judge: Judge,
) -> tuple[Params, Metrics]:
    """Gradient and metrics of `rl_loss` without a KL term, run on the groups that are alive and few others.

    All users are rolled out without gradients. Then as many groups as the next of B/8, B/4, B/2 and B, or none, are
    run with gradients, the living ones first; the other groups' gradient is 0. The program holds each size once, and
    the number of living groups picks one on the device. This pays where less than half of the groups are alive: the
    prompts of those are run once more than in `rl_loss`.

    Raises ValueError for `ref_params`.
    """
    if ref_params is not None:
        raise ValueError("a KL term has a gradient in every group: none can be left out")
    params = ranker.policy.gathered(frozen.join(trained))
    asked = ranker.prefill(params, batch.prompts)
    items = rolled_out(ranker, params, asked, batch, key, config)
    groups = groups_of(items, batch, None, judge=judge, config=config)
    everyone, metrics, pushed = group_sums(ranker, params, asked, groups, config=config)
    ranks = exact_ranks(ranker, params, asked, batch.target)
    ranks = listed_ranks(pushed.scores, items, batch.target) if ranks is None else ranks
    metrics |= teaching_metrics(ranks, pushed.pushes, pushed.scores, pushed.valid)
    order = jnp.argsort(~groups.alive)  # the sort is stable, and living groups come first

    def gradient_of(size: int) -> Callable[[Params], Params]:
        def loss(trained: Params) -> jax.Array:
            prompts, some = jax.tree.map(lambda rows: rows[order[:size]], (batch.prompts, groups))
            params = ranker.policy.gathered(frozen.join(trained))
            alive, _, _ = group_sums(ranker, params, ranker.prefill(params, prompts), some, config=config)
            return alive.sum / jnp.maximum(everyone.count, 1)

        return jax.grad(loss) if size else lambda trained: jax.tree.map(jnp.zeros_like, trained)

    B = batch.target.shape[0]
    sizes = sorted({0, -(-B // 8), -(-B // 4), -(-B // 2), B})
    which = jnp.searchsorted(jnp.asarray(sizes), groups.alive.sum())
    return jax.lax.switch(which, [gradient_of(size) for size in sizes], trained), metrics
