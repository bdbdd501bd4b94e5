"""The optimizer that the settings ask for: AdamW, a learning-rate schedule and a limit on the gradient's norm."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from wpauc_jax.config import OptimConfig
from wpauc_jax.runtime.parameters import Parameters

# By `optim.schedule`: (the highest learning rate, steps behind the warm-up) -> how it falls.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "cosine": optax.cosine_decay_schedule,
    "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
    "constant": lambda peak, steps: optax.constant_schedule(peak),
}

# By `optim.first_moment`: the type in which the gradients' mean is kept; None is that of the parameters.
FIRST_MOMENT: dict[str, jax.typing.DTypeLike | None] = {"parameters": None, "bfloat16": jnp.bfloat16}


def learning_rate_schedule(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then cosine or linear decay to 0, or a constant."""
    warmup = config.warmup if config.warmup >= 1 else config.warmup * total_steps
    warmup_steps = min(round(warmup), total_steps)
    rest = max(total_steps - warmup_steps, 1)
    peak = config.learning_rate
    decay = SCHEDULES[config.schedule](peak, rest)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup_steps, 1)), decay], [warmup_steps])


def make_optimizer(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """AdamW; weight decay acts on matrices, not on norms and biases. The parameters must know their axes."""
    adamw = optax.adamw(
        learning_rate_schedule(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        mu_dtype=FIRST_MOMENT[config.first_moment],
        weight_decay=config.weight_decay,
        mask=_decayed,
    )
    return optax.chain(_clip(config.max_grad_norm), adamw) if config.max_grad_norm else adamw


def _clip(max_norm: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, but it multiplies by a factor. XLA would store a division as one more gradient."""

    def clip(grads: optax.Updates, _: optax.Params | None) -> optax.Updates:
        factor = max_norm / jnp.maximum(optax.tree.norm(grads), max_norm)
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), grads)

    return optax.stateless(clip)


def _decayed(params: Parameters) -> Parameters:
    """Where weight decay acts: on arrays that have more than one axis. The axis of stacked layers does not count."""
    return params.map(lambda path, leaf, axes: len(axes) - ("layers" in axes) > 1)
