"""Supervised fine-tuning: a step that predicts every next item of each sequence in one causal pass."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from wpauc_jax.batches.types import SftBatch
from wpauc_jax.decode import Ranker
from wpauc_jax.models import ALL_TRAINED, Frozen, Params, Policy
from wpauc_jax.runtime.sharding import constrain_state, constrain_whole
from wpauc_jax.training.answers import answer_loss
from wpauc_jax.training.state import Metrics, Step, TrainState, updated

# By `sft.loss`: the scoring rule of its softmax, over the trie's legal children or over the vocabulary.
SFT_SCORING = {"catalog": "constrained", "lm": "vocab"}


def _each_item(items: jax.Array, is_token: jax.Array) -> jax.Array:
    return items >= 0


def _each_token(items: jax.Array, is_token: jax.Array) -> jax.Array:
    return is_token


# By scoring rule, what the mean is taken over: (items int32[B, M], where paths go on bool[B * M, 1, C]) -> bool[...].
COUNTED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"constrained": _each_item, "vocab": _each_token}


def make_sft_step(
    ranker: Ranker,
    optimizer: optax.GradientTransformation,
    *,
    frozen: Frozen = ALL_TRAINED,
    tasks: Mapping[str, float] | None = None,
) -> Step:
    """Supervised fine-tuning of the parameters that are not `frozen`; see `sft_loss`. The state is donated.

    The loss is the mean loss on histories, plus the mean loss of each alignment task times its weight in `tasks`. The
    batch holds the rows of the tasks.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen: Frozen, ranker: Ranker, batch: SftBatch) -> tuple[TrainState, Metrics]:
        policy = ranker.policy

        def mean_loss(trained: Params) -> tuple[jax.Array, Metrics]:
            params = policy.gathered(frozen.join(trained))
            total, count = sft_loss(ranker, params, batch)
            value = total / jnp.maximum(count, 1.0)
            of_tasks = {task: _task_loss(policy, params, batch, task) for task in tasks or {}}
            for task, weight in (tasks or {}).items():
                value += weight * of_tasks[task]
            return value, {"targets": count, **of_tasks}

        (value, metrics), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return constrain_state(updated(state, optimizer, grads)), constrain_whole(metrics)

    return Step(step, frozen, ranker)


def sft_loss(ranker: Ranker, params: Params, batch: SftBatch) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every next item, as (sum, count).

    Under `constrained` scoring it is a softmax over the items and its mean is taken over items. Under `vocab` it is a
    softmax over the vocabulary and its mean is taken over tokens. Items that a batch excludes have no share in the
    softmax; no target may be one of them.
    """
    hidden = ranker.policy.hidden(params, batch.tokens, batch.segments)
    B, T, D = hidden.shape
    M, C = batch.items.shape[1], ranker.trie.depth
    places = jnp.minimum(batch.starts[..., None] + jnp.arange(C, dtype=jnp.int32).reshape(1, 1, C), T - 1)
    states = jnp.take_along_axis(hidden, places.reshape(B, M * C, 1), axis=1).reshape(B * M, 1, C, D)
    nodes = ranker.trie.path(batch.items).reshape(B * M, 1, C)
    excluded = None if batch.excluded is None else batch.excluded.reshape(B * M, -1)
    logps = ranker.path_logps(params, states[:, 0, 0], states[:, :, 1:], nodes, ranker.closed_by(excluded))
    targets = COUNTED[ranker.scoring](batch.items, nodes != ranker.trie.dead)
    return -logps.sum(), targets.sum().astype(jnp.float32)


def _task_loss(policy: Policy, params: Params, batch: SftBatch, task: str) -> jax.Array:
    """The mean loss of an alignment task over its answers' tokens."""
    total, count = answer_loss(policy, params, batch.tasks[task])
    return total / jnp.maximum(count, 1.0)
