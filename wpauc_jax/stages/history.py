"""Whether items that a user has can be recommended to that user again: `exclude_history`, decided once for a run."""

import pathlib
from collections.abc import Callable

from wpauc_jax.config import Config
from wpauc_jax.data.dataset import Dataset, Items, positions, repeats
from wpauc_jax.stages.homes import home, is_trained
from wpauc_jax.training.checkpoint import trained_with

FEW = 0.01  # auto: the share of repeated targets below which histories are left out

Say = Callable[[str], None]


def excludes_history(config: Config, folder: pathlib.Path, items: Items | Dataset, say: Say) -> bool:
    """Whether no item of a user's history can be a candidate. Says what was chosen, and why.

    `auto` keeps to what a trained stage of this run did. Only before any training does it look at the interactions.
    """
    return RULES[config.exclude_history](config, folder, items, say)


def _auto(config: Config, folder: pathlib.Path, items: Items | Dataset, say: Say) -> bool:
    for stage in ("rl", "sft"):
        if is_trained(config, folder, stage):
            record = trained_with(home(config, folder, stage) / stage)
            excluded = record.get("identity", {}).get("exclude_history") == "on"
            say(f"exclude_history=auto: {_chosen(excluded)}, as {stage} was trained")
            return excluded
    dataset = items.whole()
    again, total = _repeated(dataset, "train")
    excluded = again < FEW * total
    say(
        f"exclude_history=auto: {again:,} of {total:,} training targets ({again / max(total, 1):.2%}) stand in their "
        f"own history: {_chosen(excluded)}"
    )
    if excluded:
        _tell_of_misses(dataset, again, say)
    return excluded


def _on(config: Config, folder: pathlib.Path, items: Items | Dataset, say: Say) -> bool:
    say(f"exclude_history=on: {_chosen(True)}")
    if isinstance(items, Dataset):
        _tell_of_misses(items, _repeated(items, "train")[0], say)
    return True


def _off(config: Config, folder: pathlib.Path, items: Items | Dataset, say: Say) -> bool:
    return False


# By `exclude_history`.
RULES: dict[str, Callable[[Config, pathlib.Path, Items | Dataset, Say], bool]] = {
    "auto": _auto,
    "on": _on,
    "off": _off,
}


def _chosen(excluded: bool) -> str:
    return "items of a user's history are left out of the ranking" if excluded else "every item is ranked"


def _repeated(dataset: Dataset, split: str) -> tuple[int, int]:
    """How many targets of a split stand in their own history, and how many there are."""
    samples = positions(dataset, split)
    return int(repeats(dataset)[samples].sum()), len(samples)


def _tell_of_misses(dataset: Dataset, again: int, say: Say) -> None:
    """What becomes of the targets that cannot be found."""
    missed, total = _repeated(dataset, "test")
    if again or missed:
        say(
            f"{again:,} training targets stand in their own history: RL does not see them. "
            f"{missed:,} of {total:,} test targets do: they count as missed"
        )
