"""A few users with titles: what they had, what they took next, and the lists that each stage gives."""

import numpy as np

from wpauc_jax.report.facts import RunFacts
from wpauc_jax.report.page import Block, Card, Cards, Entry, Text

_HISTORY = 8  # the latest items that are shown


def sample_users(run: RunFacts) -> list[Block]:
    """A card for each sample whose lists the evaluation kept."""
    lists = {stage: run.results["evaluated"][stage].get("lists", {}) for stage in run.trained}
    samples = [sample for sample in next(iter(lists.values()), {}) if all(sample in kept for kept in lists.values())]
    if run.dataset is None or not samples:
        return [Text("There are no lists to show. Delete the folder ranks/ and evaluate again to have them.")]
    dataset = run.dataset
    titles = dict(zip(dataset.item_ids, dataset.titles, strict=True))

    def called(item: str) -> str:
        return titles.get(item) or item

    cards = []
    for sample in samples:
        place = int(sample)
        user = int(dataset.user_of(np.array([place]))[0])
        first = int(dataset.offsets[user])
        target = dataset.item_ids[dataset.item[place]]
        shown = [called(dataset.item_ids[item]) for item in dataset.item[max(first, place - _HISTORY) : place]]
        more = place - first - len(shown)
        history = " → ".join(([f"({more:,} earlier)"] if more > 0 else []) + shown)
        entries = {
            stage: [Entry(called(item), item == target) for item in kept[sample]] for stage, kept in lists.items()
        }
        cards.append(Card(f"User {dataset.users[user]}", history, called(target), entries))
    text = (
        "A fixed draw of test samples. The lists are those after SFT (before RL) and after RL; the item that the user "
        "took next is marked."
    )
    return [Text(text), Cards(cards)]
