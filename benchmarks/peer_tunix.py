"""Tunix's GRPO step on the same shape, as a process of its own that does one for each line it reads.

    python -m benchmarks.peer_tunix --shape=mini

Needs google-tunix 0.1.7: `benchmarks.rl_step --peer=tunix` starts it with the interpreter that it is given.
Each step prints one JSON line of seconds.

It puts together what Tunix's GRPO learner does: its sampler, its log-probabilities of a reference and its loss, each
compiled, on its Qwen2. The learner's own queues and logs are left out, which only helps it. Tunix has no trie: it draws
each candidate's tokens freely from the vocabulary, so that its rollout is less work than a constrained beam search, and
its candidates are no items. As in the other peer, one candidate of each group is said to be a hit.
"""

import argparse
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.qwen2.model import ModelConfig, Qwen2
from tunix.rl import algo_core, common
from tunix.rl.grpo.grpo_learner import GRPOConfig, TrainExample

from benchmarks.shapes import EOS, KL_COEF, LEARNING_RATE, MAX_GRAD_NORM, SHAPES, Shape, prompts

PAD, BOS = 0, 2


class Numbers:
    """A tokenizer whose texts are numbers with blanks between them."""

    def encode(self, text: str, **_: Any) -> list[int]:
        """The numbers."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_: Any) -> str:
        """The text."""
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        """What begins a prompt."""
        return BOS

    def eos_id(self) -> int:
        """What ends an item."""
        return EOS

    def pad_id(self) -> int:
        """What fills up."""
        return PAD


class Peer:
    """Policy, reference and optimizer."""

    def __init__(self, shape: Shape):
        self.shape, self.new = shape, shape.levels + 1
        self.policy = self._model()
        self.reference = nnx.clone(self.policy)
        cache = CacheConfig(shape.prompt + self.new + 1, shape.layers, shape.kv_heads, shape.head_dim)
        self.sampler = Sampler(self.policy, Numbers(), cache)
        clipped = optax.chain(optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adamw(LEARNING_RATE))
        self.optimizer = nnx.Optimizer(self.policy, clipped, wrt=nnx.Param)
        settings = GRPOConfig(num_generations=shape.group, beta=KL_COEF)
        settings.temperature = 1.0

        @nnx.jit
        def reference(model: Qwen2, asked: jax.Array, answers: jax.Array) -> jax.Array:
            return common.compute_per_token_logps(*nnx.split(model), asked, answers, PAD, EOS)

        @nnx.jit
        def update(model: Qwen2, optimizer: nnx.Optimizer, example: TrainExample) -> jax.Array:
            def loss(model: Qwen2) -> tuple[jax.Array, Any]:
                return algo_core.grpo_loss_fn(model, example, settings, PAD, EOS)

            (value, _), grads = nnx.value_and_grad(loss, has_aux=True)(model)
            optimizer.update(model, grads)
            return value

        self._logps, self._update = reference, update

    def step(self, number: int) -> dict[str, float]:
        """Seconds of one step."""
        shape = self.shape
        tokens = np.repeat(prompts(shape, number), shape.group, axis=0)
        tokens[:, 0] = BOS  # which the sampler puts before every text
        clock = [time.perf_counter()]
        self.sampler.transformer_state = nnx.variables(self.policy)
        found = self.sampler(
            [" ".join(map(str, row)) for row in tokens[:, 1:].tolist()],
            max_generation_steps=self.new,
            max_prompt_length=shape.prompt,
            temperature=1.0,
            top_p=1.0,
            seed=number,
            eos_tokens=[shape.vocab],  # which is never drawn, so that all candidates have the length of an item
        )
        answers = jnp.asarray([np.asarray(row)[: self.new] for row in found.tokens])
        clock.append(time.perf_counter())
        asked = jnp.asarray(tokens)
        logps = jax.block_until_ready(self._logps(self.reference, asked, answers))
        clock.append(time.perf_counter())
        rewards = np.zeros((shape.users, shape.group), np.float32)
        rewards[:, 3] = 1.0  # every group has its hit, so that no group is dead
        advantages = algo_core.compute_advantages(rewards.reshape(-1), shape.group)
        whole = jnp.ones(answers.shape, bool)
        example = TrainExample(asked, asked != PAD, answers, whole, jnp.asarray(advantages), logps, None)
        jax.block_until_ready(self._update(self.policy, self.optimizer, example))
        clock.append(time.perf_counter())
        parts = np.diff(clock).tolist()
        return dict(zip(("rollout_s", "reference_s", "update_s"), parts, strict=True)) | {"step_s": sum(parts)}

    def _model(self) -> Qwen2:
        shape = self.shape
        config = ModelConfig(
            num_layers=shape.layers,
            vocab_size=shape.vocab,
            embed_dim=shape.width,
            hidden_dim=shape.ffn,
            num_heads=shape.heads,
            head_dim=shape.head_dim,
            num_kv_heads=shape.kv_heads,
            rope_theta=10_000,
            norm_eps=1e-6,
            use_tied_embedding=True,
        )
        return Qwen2(config, rngs=nnx.Rngs(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--set", default="{}", help="JSON object of fields of the shape to replace")
    options = parser.parse_args()
    peer = Peer(Shape(**{**vars(SHAPES[options.shape]), **json.loads(options.set)}))
    for number, _ in enumerate(sys.stdin):
        print(json.dumps(peer.step(number)), flush=True)


if __name__ == "__main__":
    main()
