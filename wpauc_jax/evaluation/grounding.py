"""A search that writes freely and then takes the items whose titles are nearest: BIGRec (arXiv 2308.08434).

The model continues the prompt with its likeliest tokens until it ends a title, whether the catalog has that title or
not. What it wrote and every title are then read by the same model, each alone. The state behind the last token stands
for the text. Items are ranked by the distance of their titles' states from that of the written text.

The paper also makes popular items nearer: (D - min D) / (max D - min D) is divided by (1 + P)^gamma, where P is an
item's share of the training interactions, scaled to go from 0 to 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.decode import Candidates
from wpauc_jax.decode.beams import top
from wpauc_jax.models import Params, Policy, Prompts
from wpauc_jax.runtime.sharding import constrain_whole, place_batch, place_whole

_TITLES_AT_ONCE = 256


def make_grounded_search(
    policy: Policy,
    catalog: Catalog,
    lead: tuple[int, ...],
    *,
    num_items: int,
    nearer: np.ndarray,
) -> Callable[[Params, PromptBatch], Candidates]:
    """(params, `PromptBatch`) -> the `num_items` nearest items of each prompt, for a catalog of titles.

    `lead` are the tokens that stand before a title in a history; a text is read behind them. `nearer` float32[I] is
    what each item's distance is multiplied with. A score is minus that product. The titles are read once for each
    parameters. Candidates have no log-probabilities of tokens: theirs are 0.
    """
    written = catalog.tokens.shape[1]  # an item's longest title, with its end
    run, read = _program(policy, catalog.end, lead, num_items, written), _reader(policy, lead, catalog.end)
    titles = place_whole(jnp.asarray(catalog.tokens))
    scale = place_whole(jnp.asarray(nearer, jnp.float32))
    last: list[tuple[Params, jax.Array]] = []  # the newest parameters, and the titles' states under them

    def search(params: Params, batch: PromptBatch) -> Candidates:
        if not last or last[0][0] is not params:
            last[:] = [(params, read(params, titles))]
        return run(params, last[0][1], scale, place_batch(batch))

    return search


def popularity_factors(counts: np.ndarray, gamma: float) -> np.ndarray:
    """float32[I]: what distances are multiplied with, from how often each item occurs in training."""
    spread = counts.max() - counts.min()
    share = (counts - counts.min()) / spread if spread else np.zeros(len(counts))
    return ((1 + share) ** -gamma).astype(np.float32)


def write(policy: Policy, params: Params, prompts: Prompts, *, end: int, most: int) -> jax.Array:
    """The likeliest continuation of each prompt, token by token: int32[B, most], `end` from a title's end on."""
    cache, past, out = policy.prefill(params, prompts), None, []
    hidden = cache.hidden[:, None]
    done = jnp.zeros(hidden.shape[0], bool)
    for place in range(most):
        token = jnp.argmax(policy.logits(params, hidden[:, 0], None), axis=-1).astype(jnp.int32)
        token = jnp.where(done, end, token)
        done |= token == end
        out.append(token)
        if place + 1 < most:
            states, past = policy.extend(params, cache, token[:, None, None], past)
            hidden = states[:, :, 0]
    return jnp.stack(out, axis=1)


def text_states(policy: Policy, params: Params, texts: jax.Array, lead: tuple[int, ...], end: int) -> jax.Array:
    """float32[N, D]: the state behind the last token of texts int32[N, T], which stop before `end` or -1."""
    stops = (texts == end) | (texts < 0)
    lengths = jnp.where(stops.any(1), stops.argmax(1), texts.shape[1]).astype(jnp.int32)
    inside = jnp.arange(texts.shape[1])[None] < lengths[:, None]
    before = jnp.broadcast_to(jnp.asarray(lead, jnp.int32), (texts.shape[0], len(lead)))
    tokens = jnp.concatenate([before, jnp.where(inside, texts, 0)], axis=1)
    return policy.prefill(params, Prompts(tokens, lengths + len(lead))).hidden.astype(jnp.float32)


def grounded_scores(written: jax.Array, titles: jax.Array, nearer: jax.Array, excluded: jax.Array | None) -> jax.Array:
    """float32[B, I]: minus the scaled distances of states [B, D] from [I, D]; -inf for items int32[B, E] left out."""
    squares = jnp.square(written).sum(1)[:, None] + jnp.square(titles).sum(1)[None] - 2 * written @ titles.T
    distance = jnp.sqrt(jnp.maximum(squares, 0.0))
    least, most = distance.min(1, keepdims=True), distance.max(1, keepdims=True)
    scores = -(distance - least) / jnp.where(most > least, most - least, 1.0) * nearer[None]
    if excluded is None:
        return scores
    rows = jnp.arange(scores.shape[0])[:, None]
    return scores.at[rows, jnp.where(excluded < 0, scores.shape[1], excluded)].set(-jnp.inf, mode="drop")


def _program(policy: Policy, end: int, lead: tuple[int, ...], num_items: int, most: int) -> jax.stages.Wrapped:
    """The jitted function (params, titles' states, factors, batch) -> Candidates, the same everywhere."""

    @jax.jit
    def run(params: Params, titles: jax.Array, nearer: jax.Array, batch: PromptBatch) -> Candidates:
        params = policy.gathered(params)
        text = write(policy, params, Prompts(batch.tokens, batch.lengths), end=end, most=most)
        states = text_states(policy, params, text, lead, end)
        scores, items = top(grounded_scores(states, titles, nearer, batch.excluded), num_items)
        valid = ~jnp.isneginf(scores)
        logps = jnp.zeros((*items.shape, 1))
        return constrain_whole(Candidates(jnp.where(valid, items, -1), logps, scores, valid))

    return run


def _reader(policy: Policy, lead: tuple[int, ...], end: int) -> Callable[[Params, jax.Array], jax.Array]:
    """(params, titles int32[I, C]) -> their states [I, D], some at a time; the last block is filled up."""

    @jax.jit
    def block(params: Params, texts: jax.Array) -> jax.Array:
        return constrain_whole(text_states(policy, policy.gathered(params), texts, lead, end))

    def read(params: Params, titles: jax.Array) -> jax.Array:
        count = titles.shape[0]
        size = min(_TITLES_AT_ONCE, count)
        padded = jnp.pad(titles, ((0, -count % size), (0, 0)), constant_values=-1)
        parts = [block(params, padded[first : first + size]) for first in range(0, count, size)]
        return jnp.concatenate(parts)[:count]

    return read
