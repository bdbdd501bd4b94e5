"""The tables of an examination.

One shows how well rankings without training do under each identity of an item. One shows how long prompts are.
"""

from collections.abc import Mapping

import numpy as np

from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.data.dataset import SPLITS, Dataset, positions
from wpauc_jax.doctor.prompts import looked_at
from wpauc_jax.evaluation.baselines import last_item_ranks, popularity_ranks
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.report import format_table, metric_title

METRICS = ("recall@1", "recall@3", "recall@5", "recall@10", "ndcg@10")


def baseline_table(
    dataset: Dataset, by_item: Mapping[str, Ranks], labels: Mapping[str, np.ndarray], max_history: int
) -> str:
    """Rankings of the test split without a model.

    `by_item` are those of the evaluation's table. `labels` names other identities by which a list can be scored. Such a
    list names each label once. It ranks every label, whether the history holds it or not.
    """
    samples = positions(dataset, "test")
    lines = [(what, "item id", ranks) for what, ranks in by_item.items()]
    for name, label in labels.items():
        lines.append(("popularity", name, popularity_ranks(dataset, samples, label)))
        lines.append(("last_item", name, last_item_ranks(dataset, samples, max_history, label)))
    cells = [[what, by, *(f"{ranks.mean(metric):.4f}" for metric in METRICS)] for what, by, ranks in lines]
    table = format_table(["ranking", "scored by", *map(metric_title, METRICS)], cells, left=2)
    return f"By item id, {next(iter(by_item.values())).rule}.\n{table}"


def length_table(dataset: Dataset, builder: PromptBuilder) -> str:
    """Tokens of the prompts of each split, and how many histories are cut to the last `max_history` items.

    The padding is that of evaluation, whose batches are of prompts of like length where `prompt.widths` names some.
    """
    cells = []
    for name in SPLITS:
        samples = positions(dataset, name)
        before = samples - dataset.offsets[dataset.user_of(samples)]
        chosen = looked_at(samples)
        lengths = builder.lengths(dataset.histories(chosen, builder.max_history))
        batches = eval_batches(dataset, builder, chosen, 64)
        held = sum(batch.prompts.tokens.shape[1] * batch.valid.sum() for batch in batches)
        quantiles = np.quantile(lengths, (0.05, 0.25, 0.5, 0.75, 0.95, 1.0), method="higher")
        cut = (before > builder.max_history).mean()
        cells.append(
            [
                name,
                f"{len(samples):,}",
                *(f"{q:.0f}" for q in quantiles),
                f"{builder.max_tokens}",
                f"{1 - lengths.sum() / held:.1%}",
                f"{cut:.1%}",
            ]
        )
    header = ["split", "samples", "5%", "25%", "50%", "75%", "95%", "longest", "limit", "padding", "histories cut"]
    return format_table(header, cells)
