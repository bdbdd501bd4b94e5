"""Useful floating-point operations of one RL step: what the algorithm needs, not what a compiler made of it.

A matrix product of [m, k] and [k, n] counts 2 m k n; a backward pass twice its forward pass. Everything else (norms,
softmax, the optimiser) counts nothing. Causal attention counts each pair of a token and one before it once. Of the
last layer a prompt needs the keys and values of all its tokens, and the rest for its last token only. Recomputation
counts nothing.
"""

import dataclasses

from benchmarks.shapes import Shape


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """Forward passes of a batch's prompts and candidates, from which the parts of a step are put together."""

    prompt: float
    suffix: float  # all candidates' tokens but the last
    with_reference: bool

    @property
    def rollout(self) -> float:
        """One forward pass."""
        return self.prompt + self.suffix

    @property
    def reference(self) -> float:
        """One forward pass, of another model."""
        return (self.prompt + self.suffix) * self.with_reference

    @property
    def update(self) -> float:
        """Forward and backward."""
        return 3 * (self.prompt + self.suffix)

    @property
    def step(self) -> float:
        """Rollout and update share one pass over the prompts."""
        return self.rollout + self.reference + self.update - self.prompt


def step_flops(shape: Shape, live_rows: list[int], *, with_reference: bool) -> StepFlops:
    """FLOPs of a step whose candidates are decided after `len(live_rows)` tokens.

    `live_rows[t]` is how many rows of the output head occur at depth t of the trie.
    """
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    keys = 2 * shape.width * 2 * key_value  # of one token in one layer
    rest = 2 * (2 * shape.width * query + 3 * shape.width * shape.ffn)
    pair = 4 * query  # a query with one key and its value
    T, tokens = shape.prompt, len(live_rows) - 1
    whole_layer = T * (keys + rest) + pair * T * (T + 1) / 2
    last_layer = T * keys + rest + pair * T
    prompt = (shape.layers - 1) * whole_layer + last_layer + 2 * shape.width * live_rows[0]
    attention = pair * (tokens * T + tokens * (tokens + 1) / 2)
    suffix = shape.layers * (tokens * (keys + rest) + attention) + 2 * shape.width * sum(live_rows[1:])
    return StepFlops(shape.users * prompt, shape.users * shape.group * suffix, with_reference)
