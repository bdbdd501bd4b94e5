"""A prepared data set in numbers, and as the table that papers print."""

from typing import Any

import numpy as np

from wpauc_jax.data.dataset import SPLITS


def statistics_of(user: np.ndarray, item: np.ndarray, split: np.ndarray, num_items: int) -> dict[str, Any]:
    """Counts of n rows sorted by user (0 .. U-1, none absent) and time; a user's first row is no sample."""
    lengths = np.bincount(user)
    firsts = split[np.cumsum(lengths) - lengths]
    samples = {
        name: int(np.count_nonzero(split == code) - np.count_nonzero(firsts == code))
        for code, name in enumerate(SPLITS)
    }
    is_trained = np.zeros(num_items, bool)
    is_trained[item[split == 0]] = True
    return {
        "users": len(lengths),
        "items": num_items,
        "interactions": len(user),
        "density": len(user) / (len(lengths) * num_items),
        "mean_user_length": float(lengths.mean()),
        "mean_item_count": len(item) / num_items,
        "samples": samples,
        "users_without_history": int((lengths == 1).sum()),
        "items_without_training": num_items - int(is_trained.sum()),
    }


def statistics_table(statistics: dict[str, Any]) -> str:
    """One line of headings and one of values."""
    columns = {
        "users": f"{statistics['users']:,}",
        "items": f"{statistics['items']:,}",
        "interactions": f"{statistics['interactions']:,}",
        "density": f"{statistics['density']:.4%}",
        "avg. length": f"{statistics['mean_user_length']:.2f}",
        **{name: f"{count:,}" for name, count in statistics["samples"].items()},
    }
    widths = [max(len(name), len(value)) for name, value in columns.items()]
    rows = (columns.keys(), columns.values())
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)
