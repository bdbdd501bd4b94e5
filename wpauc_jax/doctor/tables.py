"""The tables of an examination.

One shows how well rankings without training do under each identity of an item. One shows how long prompts are.
"""

import numpy as np

from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.data.dataset import SPLITS, Dataset, positions
from wpauc_jax.doctor.prompts import looked_at
from wpauc_jax.evaluation.baselines import last_item_ranks, popularity_ranks, transition_ranks
from wpauc_jax.evaluation.report import format_table, metric_title

METRICS = ("recall@1", "recall@3", "recall@5", "recall@10", "ndcg@10")


def baseline_table(dataset: Dataset, labels: dict[str, np.ndarray | None], max_history: int) -> str:
    """Popularity, the last items again, and what follows the last item, on the test split.

    `labels` names the identities by which a list can be scored: None is the item itself. A list scored by a label
    names each label once.
    """
    samples = positions(dataset, "test")
    lines = []
    for name, label in labels.items():
        lines.append(("popularity", name, popularity_ranks(dataset, samples, label)))
    for name, label in labels.items():
        lines.append(("last items again", name, last_item_ranks(dataset, samples, max_history, label)))
    lines.append(("after the last item", "item id", transition_ranks(dataset, samples)))
    cells = [[what, by, *(f"{ranks.mean(metric):.4f}" for metric in METRICS)] for what, by, ranks in lines]
    return format_table(["ranking", "scored by", *map(metric_title, METRICS)], cells, left=2)


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
