"""What a batch is: a frozen dataclass for each use, with the shapes in its fields.

Every batch is a pytree: of NumPy arrays on the host, of JAX arrays on the devices. B counts the rows of a batch, T the
tokens of a row. What goes to the devices and what stays on the host are apart: a step takes an `RlBatch` or an
`SftBatch`, and `Fed` is that batch beside the ids of its rows.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import jax

Array = Any  # a NumPy array on the host, a JAX array on a device, or the shape of one
Batch = TypeVar("Batch")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Prompts to be answered."""

    tokens: Array  # int32[B, T], padded with 0 on the right
    lengths: Array  # int32[B]
    excluded: Array | None = None  # int32[B, E], items that may not answer, -1 for none; None: every item may
    times: Array | None = None  # int32[B, T], seconds since the first token's, for a model that takes them
    guide: "PromptBatch | None" = None  # the same users' prompts for the search's guide, under the same rule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RlBatch:
    """Prompts, and the item that each of them asks for."""

    prompts: PromptBatch
    target: Array  # int32[B], items
    later: Array = None  # int32[B, L], what the user takes next inside training, each item once, -1 for none
    judge: PromptBatch | None = None  # the same users' prompts for the model of the reward


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TitleTaskBatch:
    """Rows of one alignment task: a prompt, then its answer."""

    tokens: Array  # int32[B, T], padded with 0
    starts: Array  # int32[B], the place of the token just before the answer
    answers: Array  # int32[B, A], the answer's tokens, -1 behind the end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SftBatch:
    """Rows of packed pieces. Each piece is a stretch of one user's sequence and sees only itself."""

    tokens: Array  # int32[B, T], padded with 0
    segments: Array  # int32[B, T], 1 for a row's first piece, 2 for its second, ...; 0 for padding
    items: Array  # int32[B, M], the targets, -1 behind a row's last
    starts: Array  # int32[B, M], the place of the token just before each target's first, that which predicts it
    tasks: Mapping[str, TitleTaskBatch] = dataclasses.field(default_factory=dict)  # alignment tasks by name
    times: Array | None = None  # int32[B, T], seconds since a piece's first token, for a model that takes them
    excluded: Array | None = None  # int32[B, M, E], items that may not answer, -1 for none; None: every item may


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowIds:
    """Whose rows a batch holds. They stay on the host: messages name them, and no step reads them."""

    user: Array = None  # int32[B], users; of SFT int32[B, S], those of a row's pieces, -1 behind the last
    sample: Array = None  # int64[B], flat positions; None where rows are no samples


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fed(Generic[Batch]):
    """A training batch as a pipeline hands it on."""

    batch: Batch  # what goes to the devices
    ids: RowIds  # what stays on the host


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EvalBatch:
    """Samples to be ranked. The prompts are those of one process; all else is the whole batch's."""

    prompts: PromptBatch  # what goes to the devices: the rows of the batch that this process holds
    target: Array  # int32[B], items
    valid: Array  # bool[B], false for the rows that only fill the batch up
    left_out: Array  # int32[B], how many items may not answer
    ids: RowIds
