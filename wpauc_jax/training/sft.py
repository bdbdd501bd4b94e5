"""Supervised fine-tuning: a step that predicts every next item of each sequence in one causal pass."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.decode.search import path_logps
from wpauc_jax.models import ALL_TRAINED, Frozen, Params, Policy
from wpauc_jax.runtime.sharding import constrain_state, constrain_whole
from wpauc_jax.training.answers import answer_loss
from wpauc_jax.training.state import Batch, Metrics, Step, TrainState, updated


def make_sft_step(
    policy: Policy,
    trie: Trie,
    optimizer: optax.GradientTransformation,
    *,
    loss: str,
    frozen: Frozen = ALL_TRAINED,
    tasks: Mapping[str, float] | None = None,
) -> Step:
    """Supervised fine-tuning of the parameters that are not `frozen`; see `sft_loss`. The state is donated.

    To the mean loss on histories that of each alignment task is added, times its weight in `tasks`; the batch holds
    the task's rows (see `data.alignment`).
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen: Frozen, trie: Trie, batch: Batch) -> tuple[TrainState, Metrics]:
        def mean_loss(trained: Params) -> tuple[jax.Array, Metrics]:
            params = policy.gathered(frozen.join(trained))
            total, count = sft_loss(policy, params, trie, batch, loss=loss)
            value = total / jnp.maximum(count, 1.0)
            of_tasks = {task: _task_loss(policy, params, batch, task) for task in tasks or {}}
            for task, weight in (tasks or {}).items():
                value += weight * of_tasks[task]
            return value, {"targets": count, **of_tasks}

        (value, metrics), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return constrain_state(updated(state, optimizer, grads)), constrain_whole(metrics)

    return Step(step, frozen, trie)


def sft_loss(policy: Policy, params: Params, trie: Trie, batch: Batch, *, loss: str) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every next item, as (sum, count).

    `catalogue`: softmax over the items, its mean taken over items. `lm`: softmax over the vocabulary, its mean taken
    over tokens. The batch holds tokens and segments int32[B, T] (see `Policy.hidden`), items int32[B, M] (-1: no
    target) and starts int32[B, M], the place of the token before an item's first.
    """
    hidden = policy.hidden(params, batch["tokens"], batch["segments"])
    B, T, D = hidden.shape
    M, C = batch["items"].shape[1], trie.depth
    places = jnp.minimum(batch["starts"][..., None] + jnp.arange(C, dtype=jnp.int32).reshape(1, 1, C), T - 1)
    states = jnp.take_along_axis(hidden, places.reshape(B, M * C, 1), axis=1).reshape(B * M, 1, C, D)
    nodes = trie.path(batch["items"]).reshape(B * M, 1, C)
    scoring = {"catalogue": "constrained", "lm": "vocab"}[loss]
    logps = path_logps(policy, params, states[:, 0, 0], states[:, :, 1:], trie, nodes, scoring=scoring)
    targets = batch["items"] >= 0 if loss == "catalogue" else nodes != trie.dead
    return -logps.sum(), targets.sum().astype(jnp.float32)


def _task_loss(policy: Policy, params: Params, batch: Batch, task: str) -> jax.Array:
    """The mean loss of an alignment task over its answers' tokens."""
    rows = {name: batch[f"{task}_{name}"] for name in ("tokens", "starts", "answers")}
    total, count = answer_loss(policy, params, **rows)
    return total / jnp.maximum(count, 1.0)
