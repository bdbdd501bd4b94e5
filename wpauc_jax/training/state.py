"""The training state that a step changes, and the step itself: a compiled program with what it leaves alone."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wpauc_jax.batches.types import RlBatch, SftBatch
from wpauc_jax.config import ConfigError
from wpauc_jax.decode import Ranker
from wpauc_jax.models import Frozen, Params, Policy
from wpauc_jax.runtime.sharding import place_whole, state_specs

Batch = RlBatch | SftBatch
Metrics = dict[str, jax.Array]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes."""

    step: jax.Array  # int32[]
    params: Params  # those that are trained
    opt_state: optax.OptState
    ref_params: Params | None  # RL with a KL term: the policy that training must not leave; otherwise None
    average: Params | None = None  # of `params` over the steps, where a stage keeps one

    @property
    def answering(self) -> Params:
        """The parameters that are validated, and kept as the best: the average where there is one."""
        return self.params if self.average is None else self.average

    def tree_flatten_with_keys(self) -> tuple[list[tuple[jax.tree_util.GetAttrKey, Any]], tuple[str, ...]]:
        """An average has a place where there is one: checkpoints from before there were averages still open."""
        names = tuple(field.name for field in dataclasses.fields(self))
        names = names if self.average is not None else names[:-1]
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], children: Iterable[Any]) -> "TrainState":
        """From what `tree_flatten_with_keys` gives."""
        return cls(**dict(zip(names, children, strict=True)))


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled program (state, frozen, ranker, seed, batch, ...) -> (state, metrics) bound to what it leaves alone.

    The state is donated. The seed is an argument, so that runs which differ in it alone share one program.
    """

    program: jax.stages.Wrapped
    frozen: Frozen
    ranker: Ranker
    seed: np.uint32
    beside: tuple[Any, ...] = ()  # what else the program reads, behind the batch

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step; metrics stay on the device."""
        return self.program(state, self.frozen, self.ranker, self._placed_seed, batch, *self.beside)

    @functools.cached_property
    def _placed_seed(self) -> jax.Array:
        """The seed on the devices, sent there once: later steps send nothing but batches."""
        with jax.transfer_guard("allow"):  # several processes compare what they place, by transfers of their own
            return jnp.asarray(place_whole(self.seed))

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The program for arrays, or shapes, like these."""
        return self.program.lower(state, self.frozen, self.ranker, self.seed, batch, *self.beside)

    def trace(self, state: TrainState, batch: Batch) -> jax.stages.Traced:
        """The program before it is lowered, for arrays, or shapes, like these."""
        return self.program.trace(state, self.frozen, self.ranker, self.seed, batch, *self.beside)


def check_dropout(policy: Policy, stage: str, rate: float) -> None:
    """Raises ConfigError for dropout in a family of models that takes none."""
    if rate and not policy.takes_dropout:
        raise ConfigError(
            f"{stage}.dropout={rate}: model.family={policy.config.family!r} takes no dropout; set it to 0"
        )


def init_state(
    params: Params, optimizer: optax.GradientTransformation, *, reference: bool = False, average: bool = False
) -> TrainState:
    """A state at step 0 with its own copies of `params`, so that steps may donate it."""

    def create(params: Params) -> TrainState:
        def copied(wanted: bool) -> Params | None:
            return jax.tree.map(jnp.copy, params) if wanted else None

        step = jnp.zeros((), jnp.int32)
        return TrainState(step, copied(True), optimizer.init(params), copied(reference), copied(average))

    return jax.jit(create, out_shardings=state_specs(jax.eval_shape(create, params)))(params)


def updated(
    state: TrainState, optimizer: optax.GradientTransformation, grads: Params, *, ema: float = 0.0
) -> TrainState:
    """The state after one update by these gradients.

    A state that keeps an average moves it with the decay min(ema, (1 + t) / (10 + t)) after t updates, so that the
    first parameters are soon forgotten: TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), average, params)
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state, average=average)
