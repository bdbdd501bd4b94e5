"""What the benchmarks of one shape share: settings, model, catalog, batches and the step's programs."""

import dataclasses
import functools
import runpy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.flops import StepFlops, step_flops
from benchmarks.measure import median, seconds
from benchmarks.memory import release_memory
from benchmarks.shapes import EOS, FIRST_CODE, KL_COEF, LEARNING_RATE, MAX_GRAD_NORM, Shape, make_catalog, prompts
from wpauc_jax.batches.types import PromptBatch, RlBatch
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.config import Config, ModelConfig, OptimConfig, RlConfig, from_config_dict
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.groups import rollout
from wpauc_jax.models import Params, init
from wpauc_jax.training.groups import group_sums, groups_of
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import NOBODY, make_rl_step
from wpauc_jax.training.state import Metrics, TrainState, init_state

SCORING = "constrained"


class Bench:
    """The programs of one shape, compiled at once, and the state that they take in turns."""

    def __init__(self, shape: Shape, model: ModelConfig, config: RlConfig, *, trim: bool = True):
        self.shape, self.config = shape, config
        self.trie = build_trie(make_catalog(shape).tolist(), eos=EOS, trim=trim)
        self.policy, _ = init(model)
        self.ranker = Ranker(self.policy, self.trie, SCORING)
        self.optimizer = make_optimizer(config.optim, total_steps=1000)
        self.step = make_rl_step(self.ranker, self.optimizer, config, seed=0)
        self.run: Callable[[TrainState, RlBatch], tuple[TrainState, Metrics]] = self.step

    def new_state(self) -> TrainState:
        """A first state, always the same."""
        return init_state(self.new_params(), self.optimizer, reference=self.config.kl_coef > 0)

    def new_params(self) -> Params:
        """The first parameters alone."""
        return init(self.policy.config)[1]

    def batch(self, seed: int) -> RlBatch:
        """Prompts without padding, and targets."""
        tokens = jnp.asarray(prompts(self.shape, seed))
        B, T = tokens.shape
        excluded = None
        if self.shape.excluded:  # behind the targets, which are the first items
            drawn = np.random.default_rng(seed).integers(B, self.shape.items, (B, self.shape.excluded))
            excluded = jnp.asarray(drawn, jnp.int32)
        prompted = PromptBatch(tokens, jnp.full(B, T, jnp.int32), excluded)
        return RlBatch(prompted, jnp.arange(B, dtype=jnp.int32))

    def compile(self) -> jax.stages.Compiled:
        """Compiles the step's program, which is what `run` runs from then on."""
        compiled = self.step.lower(jax.eval_shape(self.new_state), self.batch(0)).compile()
        program: Any = compiled  # called as the function that it was made of
        self.run = dataclasses.replace(self.step, program=program)
        release_memory()
        return compiled

    @property
    def flops(self) -> StepFlops:
        """The step's useful FLOPs."""
        rows = [len(live) for live in self.trie.rows]
        return step_flops(self.shape, rows, with_reference=self.config.kl_coef > 0)


def load_config(name: str) -> Config:
    """The configuration FILE or FILE:ARGUMENT."""
    file, _, argument = name.partition(":")
    return from_config_dict(runpy.run_path(file)["get_config"](argument or None), Config)


def shape_of(config: Config) -> Shape:
    """The shape of a run whose items are semantic ids; how many items there are, only its data would say."""
    model, levels, codes = config.model, config.catalog.levels, config.catalog.codes
    return Shape(
        name="config",
        layers=model.num_layers,
        width=model.width,
        heads=model.num_heads,
        kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        ffn=model.ffn_width,
        vocab=max(model.vocab_size, FIRST_CODE + levels * codes),
        users=config.rl.batch_size,
        group=config.rl.group_size,
        prompt=config.data.max_history * levels,
        levels=levels,
        codes=codes,
    )


def model_config(shape: Shape, **changes: Any) -> ModelConfig:
    return ModelConfig(
        num_layers=shape.layers,
        width=shape.width,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        ffn_width=shape.ffn,
        vocab_size=shape.vocab,
        **changes,
    )


def rl_config(shape: Shape, **changes: Any) -> RlConfig:
    """GRPO's group of beams, its target put in where beam search missed it, so that no group is dead."""
    optim = OptimConfig(learning_rate=LEARNING_RATE, schedule="constant", warmup=0, max_grad_norm=MAX_GRAD_NORM)
    settings: dict[str, Any] = {
        "kl_coef": KL_COEF,
        "inject_target": "if_missing",
        "target_k": min(3, shape.group - 1),
    } | changes
    return RlConfig(group_size=shape.group, batch_size=shape.users, optim=optim, **settings)


def part_seconds(bench: Bench, repeats: int) -> dict[str, float]:
    """Median seconds of rollout, reference and update as programs of their own."""
    config, optimizer = bench.config, bench.optimizer

    @jax.jit
    def roll(ranker: Ranker, params: Any, batch: RlBatch) -> jax.Array:
        return rollout(
            ranker,
            params,
            ranker.prefill(params, batch.prompts),
            batch,
            jax.random.key(0),
            negatives=config.negatives,
            group_size=config.group_size,
            inject_target=config.inject_target,
        )

    @jax.jit
    def refer(ranker: Ranker, params: Any, batch: RlBatch, items: jax.Array) -> jax.Array:
        return ranker.score(params, ranker.prefill(params, batch.prompts), items)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, ranker: Ranker, batch: RlBatch, items: jax.Array, ref_logps: jax.Array) -> TrainState:
        def loss(params: Any) -> jax.Array:
            groups = groups_of(items, batch, ref_logps, judge=NOBODY, config=config)
            asked = ranker.prefill(params, batch.prompts)
            return group_sums(ranker, params, asked, groups, config=config)[0].mean()

        updates, opt_state = optimizer.update(jax.grad(loss)(state.params), state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.ref_params)

    ranker = bench.ranker
    batch = bench.batch(0)
    holder = [bench.new_state()]
    items = roll(ranker, holder[0].params, batch)
    ref_logps = refer(ranker, holder[0].params, batch, items)

    def run_update() -> TrainState:
        holder[0] = update(holder[0], ranker, batch, items, ref_logps)
        return holder[0]

    run_update()
    return {
        "rollout_s": median(seconds(lambda: roll(ranker, holder[0].params, batch), repeats)),
        "reference_s": median(seconds(lambda: refer(ranker, holder[0].params, batch, items), repeats)),
        "update_s": median(seconds(run_update, repeats)),
    }
