"""Which rows teach: the share of each objective's gradient by the rank of a row's target, on a trained run.

    python -m benchmarks.gradient_share --config=configs/quickstart.py --workdir=RUN [--out docs/figures]

For a draw of RL's training rows the SFT of the run gives every item's exact log-probability. The gradient of each
objective is taken with respect to those scores. Its size for a row is the sum of its absolute values. The table shows
which share of the whole falls on rows whose target has rank 1, 2 to 3, and so on. `group_size` and `target_k` are those
of the configuration.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.config import RlConfig
from wpauc_jax.config.command_line import read
from wpauc_jax.decode import Ranker
from wpauc_jax.evaluation.plots import COLOURS, STYLE, save_figure
from wpauc_jax.models import Params
from wpauc_jax.objectives import (
    exact_group_loss,
    group_advantages,
    policy_loss,
    shares_by_rank,
    soft_top_k_loss,
    tawin_weights,
    top_k_threshold,
)
from wpauc_jax.objectives.shares import RANK_BUCKETS
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.workspace import Workspace, open_workspace
from wpauc_jax.training.checkpoint import load_params

Loss = Callable[[jax.Array, jax.Array, RlConfig], jax.Array]  # (log-probabilities [B, I], targets [B]) -> a number


def cross_entropy(logps: jax.Array, target: jax.Array, config: RlConfig) -> jax.Array:
    """SFT's loss."""
    return -_of(logps, target).sum()


def beams(logps: jax.Array, target: jax.Array, config: RlConfig, *, tawin: bool) -> jax.Array:
    """The policy loss of the `group_size` likeliest items, with TAWin's weights or with equal ones."""
    _, items = jax.lax.top_k(jax.lax.stop_gradient(logps), config.group_size)
    hit = items == target[:, None]
    group = jnp.take_along_axis(logps, items, axis=1)
    advantages = group_advantages(hit.astype(jnp.float32), std=config.std)
    if tawin:
        advantages *= tawin_weights(group, hit, anchor=config.anchor_rank, temperature=config.temperature)
    return policy_loss(group[..., None], advantages, kind="grpo")[0] * len(target)


def closed_form(logps: jax.Array, target: jax.Array, config: RlConfig) -> jax.Array:
    """What GRPO is in expectation over independent draws."""
    return exact_group_loss(_of(logps, target)).sum


def soft(logps: jax.Array, target: jax.Array, config: RlConfig) -> jax.Array:
    """Cross-entropy times soft Recall@K, against the exact K-th negative."""
    others = jnp.arange(logps.shape[1])[None] != target[:, None]
    return soft_top_k_loss(_of(logps, target), top_k_threshold(logps, config.target_k, where=others)).sum


LOSSES: dict[str, Loss] = {
    "SFT": cross_entropy,
    "GRPO": lambda *arguments: beams(*arguments, tawin=False),
    "TAWin": lambda *arguments: beams(*arguments, tawin=True),
    "exact": closed_form,
    "soft Top-K": soft,
}


def shares(logps: np.ndarray, target: np.ndarray, config: RlConfig) -> dict[str, list[float]]:
    """{"rows" or an objective: the share of each bucket}."""
    own = logps[np.arange(len(target)), target]
    rank = (logps > own[:, None]).sum(axis=1)
    found = {"rows": shares_by_rank(np.ones(len(target)), rank).tolist()}
    for name, loss in LOSSES.items():

        def of_scores(scores: jax.Array, loss: Loss = loss) -> jax.Array:
            return loss(jax.nn.log_softmax(scores), jnp.asarray(target), config)

        sizes = jnp.abs(jax.jit(jax.grad(of_scores))(logps)).sum(axis=1)
        found[name] = shares_by_rank(sizes, rank).tolist()
    return found


def catalog_scores(work: Workspace, params: Params, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log-probabilities float32[N, I], targets int32[N]) of samples; an item that is left out has -1e9."""
    ranker = work.ranker(work.config.scoring)

    @jax.jit
    def score(ranker: Ranker, params: Params, prompts: PromptBatch) -> jax.Array:
        return ranker.score_all(params, ranker.prefill(params, prompts))

    logps, targets = [], []
    for batch in eval_batches(work.dataset, work.builder, rows, work.config.eval.batch_size):
        logps.append(np.asarray(score(ranker, params, batch.prompts))[batch.valid])
        targets.append(np.asarray(batch.target)[batch.valid])
    return np.maximum(np.concatenate(logps), -1e9), np.concatenate(targets).astype(np.int32)


def draw(path: pathlib.Path, found: dict[str, list[float]]) -> None:
    """Bars: one group a bucket, one bar an objective."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.2), layout="constrained")
        axis = figure.subplots()
        width = 0.8 / len(found)
        for i, (name, values) in enumerate(found.items()):
            places = np.arange(len(RANK_BUCKETS)) + (i - (len(found) - 1) / 2) * width
            colour = "#b0b0b0" if name == "rows" else COLOURS[(i - 1) % len(COLOURS)]
            axis.bar(places, values, width, label=name, color=colour)
        axis.set_xticks(range(len(RANK_BUCKETS)), list(RANK_BUCKETS))
        axis.set_xlabel("rank of a row's target")
        axis.set_ylabel("share of the gradient")
        figure.legend(loc="outside lower center", ncols=len(found))
        save_figure(figure, path)


def _of(logps: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logps, target[:, None], axis=1)[:, 0]


def main(arguments: Sequence[str]) -> None:
    """--config, --workdir and --config.NAME=VALUE are those of `wpauc_jax.main`."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=2048, help="training rows that are drawn")
    parser.add_argument("--out", help="a folder for the figure, gradient_share.png")
    options, rest = parser.parse_known_args(arguments[1:])
    command = read([arguments[0], *rest])
    config, folder = command.config, command.workdir
    work = open_workspace(config, folder, lambda text: print(text, file=sys.stderr))
    params = work.frozen.join(load_params(best_folder(work, "sft"), work.first_params))
    rows = np.sort(np.random.default_rng(0).permutation(work.rl_positions)[: options.rows])
    found = shares(*catalog_scores(work, params, rows), config.rl)
    print(f"| rank of the target | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for place, name in enumerate(RANK_BUCKETS):
        print(f"| {name} | {' | '.join(f'{values[place]:.3f}' for values in found.values())} |")
    if options.out:
        draw(pathlib.Path(options.out, "gradient_share.png"), found)


if __name__ == "__main__":
    main(sys.argv)
