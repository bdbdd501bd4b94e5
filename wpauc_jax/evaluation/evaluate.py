"""At which place of its list does each target come? Beam search answers, or an exact ranking of the catalog."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax.batches.types import EvalBatch, PromptBatch
from wpauc_jax.decode import Candidates, Ranker
from wpauc_jax.decode.beams import top
from wpauc_jax.evaluation.ranks import Ranks, area_names
from wpauc_jax.models import Params
from wpauc_jax.runtime.sharding import constrain_whole, place_batch, place_whole

Search = Callable[[Params, PromptBatch], Candidates]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["rank", "beam", "missed", "first"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Placed:
    """B targets among all items and in beams of the same prompts, and what those beams miss."""

    rank: jax.Array  # int32[B], 0-based
    beam: jax.Array  # int32[B], the target's place in the beam, -1 if it is not there
    missed: jax.Array  # int32[B, len(ks)], how many of the K best items the beam's first K lack
    first: jax.Array  # float32[B], the best item's log-probability


@dataclasses.dataclass(frozen=True)
class ExactSearch:
    """The compiled program of `evaluate_exact`, and what it was made for."""

    run: Callable[[Params, EvalBatch], Placed]
    num_items: int
    num_beams: int
    ks: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Exact:
    """An evaluation among all items, and by beams beside it."""

    ranks: Ranks
    beams: Ranks
    missed: dict[int, float]  # K: the mean share of the K best items that the beam's first K lack

    def metrics(self) -> dict[str, float]:
        """AUC, OPAUC@K and WPAUC@K over all negatives, and missed@K, at each K of `missed`."""
        areas = {name: self.ranks.mean(name) for name in area_names(self.missed)}
        return areas | {f"missed@{k}": share for k, share in self.missed.items()}


def search_program(*, num_beams: int) -> jax.stages.Wrapped:
    """The jitted function (ranker, params, `PromptBatch`) -> Candidates, the same everywhere."""

    @jax.jit
    def run(ranker: Ranker, params: Params, batch: PromptBatch) -> Candidates:
        params = ranker.policy.gathered(params)
        return constrain_whole(ranker.search(params, ranker.prefill(params, batch), num_beams=num_beams))

    return run


def make_search(ranker: Ranker, *, num_beams: int) -> Search:
    """Beam search of that width, compiled once: (params, `PromptBatch`) -> Candidates.

    The batch holds this process's rows of the global batch; every process gets all the candidates.
    """
    run = search_program(num_beams=num_beams)
    return lambda params, batch: run(ranker, params, place_batch(batch))


def make_exact_search(ranker: Ranker, *, num_beams: int, ks: Sequence[int]) -> ExactSearch:
    """Exact ranks, and the error of beams of that width at each K of `ks`, from one prefill; compiled once.

    Where every item is one token, beams are exact: no search is run.
    """

    @jax.jit
    def run(ranker: Ranker, params: Params, batch: PromptBatch, target: jax.Array) -> Placed:
        params = ranker.policy.gathered(params)
        asked = ranker.prefill(params, batch)
        scores = ranker.score_all(params, asked)
        rank, first = rank_among(scores, target), scores.max(axis=1)
        if ranker.trie.depth == 1:
            beam, missed = jnp.where(rank < num_beams, rank, -1), jnp.zeros((target.shape[0], len(ks)), jnp.int32)
            return constrain_whole(Placed(rank, beam, missed, first))
        beams = ranker.search(params, asked, num_beams=num_beams).items
        best = top(scores, min(max(ks), ranker.trie.num_items))[1]
        found = best[:, :, None] == beams[:, None, :]  # [B, K, W]
        lacks = [(~found[:, :k, :k].any(-1)).sum(-1, dtype=jnp.int32) for k in ks]
        hit = beams == target[:, None]
        beam = jnp.where(hit.any(axis=1), hit.argmax(axis=1), -1)
        return constrain_whole(Placed(rank, beam, jnp.stack(lacks, axis=1), first))

    def place(params: Params, batch: EvalBatch) -> Placed:
        return run(ranker, params, place_batch(batch.prompts), place_whole(batch.target))

    return ExactSearch(place, ranker.trie.num_items, num_beams, tuple(ks))


def rank_among(scores: jax.Array, target: jax.Array) -> jax.Array:
    """The 0-based place int32[B] of items int32[B] by descending scores [B, I]; of equal ones the first comes first."""
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    ahead = (scores > own) | ((scores == own) & (jnp.arange(scores.shape[1])[None] < target[:, None]))
    return ahead.sum(axis=1, dtype=jnp.int32)


def evaluate(
    search: Search,
    params: Params,
    batches: Iterable[EvalBatch],
    *,
    on_batch: Callable[[int], None] = lambda rows: None,
    on_first: Callable[[np.ndarray], None] = lambda logps: None,
    on_lists: Callable[[EvalBatch, np.ndarray], None] = lambda batch, items: None,
) -> Ranks:
    """Ranks by beams of all samples of finite `batches` (see `batches.pipeline.eval_batches`), by ascending sample.

    `on_batch` is told how many samples each batch brought, and `on_first` the log-probabilities float32[n] of the first
    items of their lists. `on_lists` is given each batch with its lists int32[B, W]. The next batch is searched while
    one is read.
    """
    rows = _Rows()
    width = 0
    for batch, found in _one_ahead(lambda batch: search(params, batch.prompts), batches):
        items = np.asarray(found.items)
        width = items.shape[1]
        hit = items == batch.target[:, None]
        on_first(np.asarray(found.scores)[batch.valid, 0])
        on_lists(batch, items)
        on_batch(rows.add(batch, rank=np.where(hit.any(axis=1), hit.argmax(axis=1), -1)))
    return rows.ranks(width)


def evaluate_exact(
    search: ExactSearch,
    params: Params,
    batches: Iterable[EvalBatch],
    *,
    on_batch: Callable[[int], None] = lambda rows: None,
    on_first: Callable[[np.ndarray], None] = lambda logps: None,
) -> Exact:
    """`evaluate`, and the same among all items, in one pass."""
    rows = _Rows()
    for batch, found in _one_ahead(functools.partial(search.run, params), batches):
        on_first(np.asarray(found.first)[batch.valid])
        on_batch(rows.add(batch, **{name: np.asarray(getattr(found, name)) for name in ("rank", "beam", "missed")}))
    missed = np.concatenate(rows.columns["missed"]).mean(axis=0, dtype=np.float64)
    shares = {k: float(count) / min(k, search.num_items) for k, count in zip(search.ks, missed, strict=True)}
    return Exact(rows.ranks(search.num_items), rows.ranks(search.num_beams, "beam"), shares)


class _Rows:
    """Columns of samples gathered from batches, without the rows that only fill one up."""

    def __init__(self) -> None:
        self.columns: dict[str, list[np.ndarray]] = collections.defaultdict(list)

    def add(self, batch: EvalBatch, **found: np.ndarray) -> int:
        """Returns how many samples came."""
        ids = batch.ids
        found |= {"sample": ids.sample, "user": ids.user, "target": batch.target}
        if batch.prompts.excluded is not None:
            found["left_out"] = batch.left_out
        for name, column in found.items():
            self.columns[name].append(column[batch.valid])
        return int(batch.valid.sum())

    def ranks(self, num_candidates: int, rank: str = "rank") -> Ranks:
        order = np.argsort(np.concatenate(self.columns["sample"]))

        def column(name: str) -> np.ndarray:
            return np.concatenate(self.columns[name])[order]

        left_out = column("left_out") if "left_out" in self.columns else None
        return Ranks(column("sample"), column("user"), column("target"), column(rank), num_candidates, left_out)


def _one_ahead(search: Callable[[EvalBatch], Any], batches: Iterable[EvalBatch]) -> Iterator[tuple[EvalBatch, Any]]:
    """(batch, what was found), the next search dispatched before these are handed out."""
    waiting = None
    for batch in batches:
        dispatched = (batch, search(batch))
        if waiting is not None:
            yield waiting
        waiting = dispatched
    if waiting is not None:
        yield waiting
