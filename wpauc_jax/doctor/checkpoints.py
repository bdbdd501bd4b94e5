"""Checks of what was trained: is it of this data and catalog, is it finite, and does it name only items?"""

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.data.dataset import positions
from wpauc_jax.decode import Candidates, Ranker
from wpauc_jax.doctor.findings import Finding, problem, rows
from wpauc_jax.evaluation.ranks import Ranks, RanksError
from wpauc_jax.models import Params
from wpauc_jax.runtime.sharding import batch_rows, constrain_whole, place_batch
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.trained import changes
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.checkpoint import CheckpointError, load_params

_ROWS = 32  # test samples that are searched
_TOLERANCE = 1e-3  # of a log-probability computed in two ways, in bfloat16 too


def checkpoint_is_of_this_run(work: Workspace, stage: str) -> list[Finding]:
    """The stage was trained with this data, catalog, prompt, model and scoring rule."""
    found = changes(work, stage)
    return [problem(f"the checkpoint of {stage} was written by another run: {change}") for change in found]


def parameters_load(work: Workspace, stage: str) -> tuple[Params | None, list[Finding]]:
    """All parameters at the stage's best have this model's shapes, and every value is finite."""
    try:
        params = work.frozen.join(load_params(best_folder(work, stage), work.first_params))
    except CheckpointError as error:
        return None, [problem(f"the parameters of {stage} cannot be used: {error}")]
    finite = jax.jit(lambda tree: constrain_whole(jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)))(params)
    broken = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, is_finite in jax.tree_util.tree_leaves_with_path(finite)
        if not is_finite
    ]
    if not broken:
        return params, []
    return None, [problem(f"arrays of {stage}'s parameters with a value that is not finite: {len(broken)}", broken[:3])]


def lists_are_of_the_catalog(work: Workspace, stage: str, params: Params) -> list[Finding]:
    """Beams hold distinct items of the catalog in descending order, as many as asked for, with their true scores."""
    size, width = work.config.eval.batch_size, work.config.eval.num_beams
    samples = positions(work.dataset, "test")[: min(_ROWS, size)]
    batch = eval_batches(work.dataset, work.builder, samples, size, rows=batch_rows(size))[0]
    found = work.search(width)(params, batch.prompts)
    items, scores, valid = np.asarray(found.items), np.asarray(found.scores, np.float64), np.asarray(found.valid)
    expected = np.minimum(width, work.catalog.num_items - batch.left_out)  # of each row
    listed = np.arange(items.shape[1])[None] < expected[:, None]
    ordered = np.where(valid, scores, -np.inf)
    checks = {
        f"do not hold {expected.max()} items": valid.sum(1) != expected,
        "name an item outside the catalog": (listed & ((items < 0) | (items >= work.catalog.num_items))).any(1),
        "name an item twice": np.array([len(set(row[ok])) < ok.sum() for row, ok in zip(items, valid, strict=True)]),
        "have a score that is not a number": (valid & ~np.isfinite(scores)).any(1),
        "are not in descending order": (ordered[:, 1:] > ordered[:, :-1]).any(1),
    }
    if work.config.eval.search == "beams":  # whose scores are log-probabilities
        checks["have more than all of the probability"] = np.exp(ordered).sum(1) > 1 + _TOLERANCE
        checks["have other scores than the model gives their items"] = _misscored(work, params, batch.prompts, found)
    out = []
    for text, wrong in checks.items():
        wrong &= batch.valid  # the other rows fill the batch up
        if wrong.any():
            named = rows(work.dataset, batch.ids.sample[wrong])
            out.append(problem(f"lists of {stage} that {text}: {int(wrong.sum())}", named))
    return out


def _misscored(work: Workspace, params: Params, mine: PromptBatch, found: Candidates) -> np.ndarray:
    """bool[B]: users with an item whose score is another when the item is scored alone."""

    @jax.jit
    def score(ranker: Ranker, params: Params, batch: PromptBatch, items: jax.Array) -> jax.Array:
        return constrain_whole(ranker.score(params, ranker.prefill(params, batch), items).sum(-1))

    items, scores = np.asarray(found.items), np.asarray(found.scores)
    placed = place_batch((mine, items[batch_rows(len(items))]))
    again = np.asarray(score(work.asked_ranker, params, *placed))
    tolerance = _TOLERANCE * np.maximum(1, np.abs(scores))
    return (np.asarray(found.valid) & ~(np.abs(again - scores) <= tolerance)).any(1)


def ranks_are_of_this_data(work: Workspace) -> list[Finding]:
    """Each file of ranks holds the test samples of this data, with their targets."""
    out = []
    test = positions(work.dataset, "test")
    for path in sorted((work.folder / "ranks").glob("*.npz")):
        try:
            ranks = Ranks.load(path)
        except RanksError as error:
            out.append(problem(str(error)))
            continue
        same = np.array_equal(np.sort(ranks.sample), test)
        if not (same and np.array_equal(ranks.target, work.dataset.item[ranks.sample])):
            out.append(problem(f"{path} was measured on other data; evaluate again"))
    return out
