"""Evaluation by constrained beam search over the whole catalogue: where does each sample's target come?"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.decode import Candidates, constrained_beam_search
from wpauc_jax.models import Params, Policy, Prompts
from wpauc_jax.ranks import Ranks

Search = Callable[[Params, dict[str, np.ndarray]], Candidates]


def make_search(policy: Policy, trie: Trie, *, num_beams: int, scoring: str) -> Search:
    """Beam search of that width, compiled once: (params, batch with tokens and lengths) -> Candidates."""

    @jax.jit
    def search(params: Params, trie: Trie, tokens: jax.Array, lengths: jax.Array) -> Candidates:
        prompts = Prompts(tokens, lengths)
        return constrained_beam_search(policy, params, prompts, trie, num_beams=num_beams, scoring=scoring)

    return lambda params, batch: search(params, trie, jnp.asarray(batch["tokens"]), jnp.asarray(batch["lengths"]))


def evaluate(
    search: Search,
    params: Params,
    batches: Iterable[dict[str, np.ndarray]],
    *,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Ranks:
    """Ranks of all samples of finite `batches` (see `data.pipeline.eval_batches`), in their order.

    `on_batch` is told how many samples each batch brought. The next batch is searched while one is read.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("sample", "user", "target", "rank")}
    width = 0
    for batch, found in _one_ahead(search, params, batches):
        items, valid = np.asarray(found.items), batch["valid"]
        width = items.shape[1]
        hit = items == batch["target"][:, None]
        columns["rank"].append(np.where(hit.any(axis=1), hit.argmax(axis=1), -1)[valid])
        for name in ("sample", "user", "target"):
            columns[name].append(batch[name][valid])
        on_batch(int(valid.sum()))
    return Ranks(**{name: np.concatenate(parts) for name, parts in columns.items()}, num_candidates=width)


def _one_ahead(search: Search, params: Params, batches: Iterable[dict[str, np.ndarray]]):
    """(batch, its candidates), the next search dispatched before these are handed out."""
    waiting = None
    for batch in batches:
        dispatched = (batch, search(params, batch))
        if waiting is not None:
            yield waiting
        waiting = dispatched
    if waiting is not None:
        yield waiting
