"""How much memory a training state takes on one device, part by part, from shapes alone."""

import math
from collections.abc import Iterable
from typing import Any

import jax

from wpauc_jax.training.state import TrainState


def state_bytes(state: TrainState) -> dict[str, int]:
    """Bytes that one device holds of each part of a state, of arrays or of their shapes with shardings.

    What is whole on every device counts in full, and what is cut over devices with its largest piece.
    """
    parts = {
        "parameters": state.params,
        "moments": state.opt_state,
        "reference": state.ref_params,
        "average": state.average,
    }
    sizes = {name: tree_bytes(part) for name, part in parts.items()}
    return {name: size for name, size in sizes.items() if size}


def tree_bytes(tree: Any) -> int:
    """Bytes that one device holds of a tree's arrays."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def memory_table(parts: dict[str, int], whole: float) -> list[str]:
    """Lines on what a program of `whole` bytes holds: the parts, and what it makes on its way.

    The last part is activations, gradients, batches and the catalog.
    """
    rest = max(whole - sum(parts.values()), 0)
    rows = [*parts.items(), ("activations and the rest", rest), ("in all", whole)]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {size / 2**30:8.3f} GiB" for name, size in rows]


def memory_line(stage: str, parts: dict[str, int]) -> str:
    """What a stage holds on each device all the time."""
    told = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return (
        f"{stage} holds {_size(sum(parts.values()))} on each device: {told}. Activations come on top of this; "
        "mode=compile_check says how much they take"
    )


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _bytes(leaf: Any) -> int:
    shape: Iterable[int] = leaf.shape
    if leaf.sharding is not None:
        shape = leaf.sharding.shard_shape(tuple(leaf.shape))
    return math.prod(shape) * leaf.dtype.itemsize
