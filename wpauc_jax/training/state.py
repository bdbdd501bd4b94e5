"""The training state that a step changes, and the step itself: a compiled program with what it leaves alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from wpauc_jax.batches.types import RlBatch, SftBatch
from wpauc_jax.decode import Ranker
from wpauc_jax.models import Frozen, Params
from wpauc_jax.runtime.sharding import state_specs

Batch = RlBatch | SftBatch
Metrics = dict[str, jax.Array]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["step", "params", "opt_state", "ref_params"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes."""

    step: jax.Array  # int32[]
    params: Params  # those that are trained
    opt_state: optax.OptState
    ref_params: Params | None  # RL with a KL term: the policy that training must not leave; otherwise None


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled program (state, frozen, ranker, batch) -> (state, metrics) bound to what it does not change.

    The state is donated.
    """

    program: jax.stages.Wrapped
    frozen: Frozen
    ranker: Ranker

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step; metrics stay on the device."""
        return self.program(state, self.frozen, self.ranker, batch)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The program for arrays, or shapes, like these."""
        return self.program.lower(state, self.frozen, self.ranker, batch)


def init_state(params: Params, optimizer: optax.GradientTransformation, *, reference: bool = False) -> TrainState:
    """A state at step 0 with its own copy of `params`, so that steps may donate it."""

    def create(params: Params) -> TrainState:
        ref_params = jax.tree.map(jnp.copy, params) if reference else None
        return TrainState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), optimizer.init(params), ref_params)

    return jax.jit(create, out_shardings=state_specs(jax.eval_shape(create, params)))(params)


def updated(state: TrainState, optimizer: optax.GradientTransformation, grads: Params) -> TrainState:
    """The state after one update by these gradients."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
