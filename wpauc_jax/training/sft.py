"""Supervised fine-tuning: a step that predicts every next item of each sequence in one causal pass."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import ConfigError, SftConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.models import ALL_TRAINED, Dropout, Frozen, Params
from wpauc_jax.objectives import Total, prefix_loss, self_hard_loss
from wpauc_jax.runtime.sharding import constrain_state, constrain_whole, on_one_device
from wpauc_jax.training.answers import answer_loss
from wpauc_jax.training.blocks import rows_of_a_block, sum_in_blocks
from wpauc_jax.training.item_losses import ITEM_LOSSES, ItemLoss
from wpauc_jax.training.parts import Totals, gradient_in_parts, weighted_mean
from wpauc_jax.training.state import Metrics, Step, TrainState, check_dropout, updated

DEFAULT = SftConfig()
_NEGATIVES = 0x6E656761  # tells the key of drawn negatives from that of dropout

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
    config: SftConfig = DEFAULT,
    *,
    seed: int = 0,
    frozen: Frozen = ALL_TRAINED,
) -> Step:
    """Supervised fine-tuning of the parameters that are not `frozen`; see `sft_loss`. The state is donated.

    The loss is the mean loss on histories, plus the mean loss of each alignment task times its weight in
    `config.tasks`. The batch holds the rows of the tasks. What dropout draws is a function of the seed and the step.

    Raises ConfigError for dropout in a family of models that takes none, and for an objective that needs the scores of
    all items where an item is several tokens.
    """
    check_dropout(ranker.policy, "sft", config.dropout)
    if config.objective == "self_hard" and not 1 <= config.hard_layers < ranker.policy.config.num_layers:
        raise ConfigError(
            f"sft.hard_layers={config.hard_layers} must be below model.num_layers={ranker.policy.config.num_layers}: "
            "the last layer is no middle one"
        )
    if config.objective == "self_hard" and not ranker.policy.reads_layers:
        raise ConfigError(
            f"sft.objective='self_hard' reads middle layers, which model.family={ranker.policy.config.family!r} does "
            "not give; take model.family='decoder'"
        )
    if config.objective in ITEM_LOSSES and ranker.trie.depth > 1:
        raise ConfigError(
            f"sft.objective={config.objective!r} needs one token an item: set catalog.ids='atomic', or "
            "sft.objective='cross_entropy'"
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState, frozen: Frozen, ranker: Ranker, seed: jax.Array, batch: SftBatch
    ) -> tuple[TrainState, Metrics]:
        policy, key = ranker.policy, jax.random.fold_in(jax.random.key(seed), state.step)

        def joined(trained: Params) -> Params:
            return policy.gathered(frozen.join(trained))

        def history(params: Params, batch: SftBatch, key: jax.Array) -> Total:
            return OBJECTIVES[config.objective](ranker, params, batch, key, config)

        def task(name: str, params: Params, batch: SftBatch, key: jax.Array) -> Total:
            return Total(*answer_loss(policy, params, batch.tasks[name], _dropout(key, config)))

        of_tasks = [(weight, functools.partial(task, name)) for name, weight in config.tasks.items()]
        losses: list[tuple[float, Loss]] = [(1.0, history), *of_tasks]
        terms = [_Term(*one, jax.random.fold_in(key, number)) for number, one in enumerate(losses)]
        if config.microbatches == 1:
            totals, grads = _gradient(terms, joined, state.params, batch)
        else:
            totals, grads = _gradient_in_parts(terms, joined, state.params, batch, config.microbatches)
        metrics = {"targets": totals[0].count}
        metrics |= {name: of_task.mean() for name, of_task in zip(config.tasks, totals[1:], strict=True)}
        loss = weighted_mean(totals, [term.weight for term in terms])
        metrics |= {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        return constrain_state(updated(state, optimizer, grads, ema=config.ema)), constrain_whole(metrics)

    return Step(step, frozen, ranker, np.uint32(seed))


Loss = Callable[[Params, SftBatch, jax.Array], Total]  # of all parameters, rows, and the key of what is drawn


class _Term(NamedTuple):
    """One part of the loss of a step."""

    weight: float
    loss: Loss
    key: jax.Array


def _gradient(
    terms: Sequence[_Term], joined: Callable[[Params], Params], trained: Params, batch: SftBatch
) -> tuple[Totals, Params]:
    """The terms of the loss, and its gradient. `joined` gives all parameters, of the trained ones."""

    def loss(trained: Params) -> tuple[jax.Array, Totals]:
        params = joined(trained)
        totals = tuple(term.loss(params, batch, term.key) for term in terms)
        return weighted_mean(totals, [term.weight for term in terms]), totals

    (_, totals), grads = jax.value_and_grad(loss, has_aux=True)(trained)
    return totals, grads


def _gradient_in_parts(
    terms: Sequence[_Term], joined: Callable[[Params], Params], trained: Params, batch: SftBatch, parts: int
) -> tuple[Totals, Params]:
    """The same, term after term, each with the rows in parts."""
    totals: Totals = ()
    grads = jax.tree.map(jnp.zeros_like, trained)
    for term in terms:

        def of_part(trained: Params, rows: SftBatch, number: jax.Array, term: _Term = term) -> tuple[Totals, Metrics]:
            return (term.loss(joined(trained), rows, jax.random.fold_in(term.key, number)),), {}

        found, more, _ = gradient_in_parts(of_part, trained, batch, parts=parts, weights=(term.weight,))
        totals, grads = (*totals, *found), jax.tree.map(jnp.add, grads, more)
    return totals, grads


def sft_loss(
    ranker: Ranker,
    params: Params,
    batch: SftBatch,
    *,
    dropout: Dropout | None = None,
    smoothing: float = 0.0,
    prefixes: tuple[float, float] = (0.0, 1.0),
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every next item, as (sum, count).

    Under `constrained` scoring it is a softmax over the items and its mean is taken over items. Under `vocab` it is a
    softmax over the vocabulary and its mean is taken over tokens. Items that a batch excludes have no share in the
    softmax; no target may be one of them. `smoothing` is that of `Ranker.path_losses`. `prefixes` are the weight and
    the eta of `prefix_loss`, which joins the mean.
    """
    states, targets = _states(ranker, params, batch, dropout), _targets(batch)
    is_token = ranker.trie.path(targets.items)[:, None] != ranker.trie.dead
    count = COUNTED[ranker.scoring](batch.items, is_token).sum().astype(jnp.float32)

    def losses(states: jax.Array, targets: _Targets) -> jax.Array:
        nodes, closed = ranker.trie.path(targets.items)[:, None], ranker.closed_by(targets.excluded)
        paths = params, states[:, 0], states[:, None, 1:], nodes, closed
        return ranker.path_losses(*paths, smoothing=smoothing) if smoothing else -ranker.path_logps(*paths)

    weight, eta = prefixes
    if weight:
        each = losses(states, targets)
        return each.sum() + weight * count * prefix_loss(each, eta=eta, where=is_token), count
    size = rows_of_a_block(ranker.trie.num_items)
    if ranker.trie.depth > 1 or not on_one_device() or len(states) <= size:
        return losses(states, targets).sum(), count
    return sum_in_blocks(lambda *rows: losses(*rows).sum(), states, targets, targets.items >= 0, size), count


def _dropout(key: jax.Array, config: SftConfig) -> Dropout | None:
    return Dropout(key, config.dropout) if config.dropout else None


class _Targets(NamedTuple):
    """The N = B * M targets of a batch."""

    items: jax.Array  # int32[N], -1 for none
    excluded: jax.Array | None  # int32[N, E], the items that may not answer


def _targets(batch: SftBatch) -> _Targets:
    N, excluded = batch.items.size, batch.excluded
    return _Targets(batch.items.reshape(N), None if excluded is None else excluded.reshape(N, -1))


def _states(ranker: Ranker, params: Params, batch: SftBatch, dropout: Dropout | None) -> jax.Array:
    """[N, C, D]: the states from which the tokens of the targets are predicted."""
    places, depth = (batch.tokens, batch.segments, batch.starts), ranker.trie.depth
    states = ranker.policy.answer_states(params, *places, depth, dropout, batch.times)
    return states.reshape(-1, depth, states.shape[-1])


def cross_entropy(ranker: Ranker, params: Params, batch: SftBatch, key: jax.Array, config: SftConfig) -> Total:
    """See `sft_loss`."""
    smoothing, prefixes = config.label_smoothing, (config.prefix_loss, config.prefix_eta)
    dropout = _dropout(key, config)
    return Total(*sft_loss(ranker, params, batch, dropout=dropout, smoothing=smoothing, prefixes=prefixes))


def item_loss(
    loss: ItemLoss, ranker: Ranker, params: Params, batch: SftBatch, key: jax.Array, config: SftConfig
) -> Total:
    """A loss over the scores of all items behind each target's history."""
    states, targets = _states(ranker, params, batch, _dropout(key, config)), _targets(batch)
    scores = ranker.item_logits(params, states[:, 0], ranker.closed_by(targets.excluded))
    target = ranker.trie.slot[ranker.trie.path(targets.items)[:, 0]]
    counted = targets.items >= 0
    return loss(scores, target, counted, jax.random.fold_in(key, _NEGATIVES), config)


def self_hard(ranker: Ranker, params: Params, batch: SftBatch, key: jax.Array, config: SftConfig) -> Total:
    """`self_hard_loss` of each step of the targets' paths, inside the trie's children; the mean is over items."""
    targets, depth, middle = _targets(batch), ranker.trie.depth, config.hard_layers
    policy, dropout = ranker.policy, _dropout(key, config)
    states = policy.layer_states(params, batch.tokens, batch.segments, batch.starts, depth, middle, dropout)
    states = states.reshape(1 + middle, -1, 1, depth, states.shape[-1])
    nodes, closed = ranker.trie.path(targets.items)[:, None], ranker.closed_by(targets.excluded)
    legal = [ranker.path_logits(params, one[:, 0, 0], one[:, :, 1:], nodes, closed)[1] for one in states]
    steps = [
        self_hard_loss(
            legal[0][t],
            jnp.stack([of_layer[t] for of_layer in legal[1:]]),
            jnp.maximum(place, 0),
            weight=config.hard_weight,
            ratio=config.hard_ratio,
            distillation=config.distillation,
            where=nodes[..., t] != ranker.trie.dead,
        ).sum
        for t, place in enumerate(ranker.path_places(nodes))
    ]
    return Total(sum(steps, jnp.zeros(())), (batch.items >= 0).sum().astype(jnp.float32))


# By `sft.objective`: (ranker, parameters, rows, the key of what is drawn, settings) -> the loss on histories.
OBJECTIVES: dict[str, Callable[[Ranker, Params, SftBatch, jax.Array, SftConfig], Total]] = {
    "cross_entropy": cross_entropy,
    "self_hard": self_hard,
    **{name: functools.partial(item_loss, loss) for name, loss in ITEM_LOSSES.items()},
}
