"""Low-rank adapters (Hu et al., arXiv 2106.09685): added to a policy, and merged into its linear maps.

An adapted map is y = x W + x A B. A starts random and B starts at 0, so the policy starts unchanged.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from wpauc_jax.config import LoraConfig
from wpauc_jax.models.policy import Params, Policy, make_policy
from wpauc_jax.runtime.parameters import Parameters


def is_adapter(axes: Sequence[str]) -> bool:
    """Whether a parameter, by its axes, belongs to an adapter."""
    return "adapter" in axes


def add_adapter(policy: Policy, params: Params, lora: LoraConfig, seed: int = 0) -> tuple[Policy, Params]:
    """The policy with a fresh adapter of `lora.rank` > 0; its other parameters are `params`, not copied."""
    adapted, _ = make_policy(dataclasses.replace(policy.config, lora=lora))

    @jax.jit  # inside jit, only the adapter is computed
    def create(key: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        fresh = flatten_dict(adapted.fresh(key))
        return {path: leaf for path, leaf in fresh.items() if is_adapter(adapted.axes[path])}

    joined = unflatten_dict({**flatten_dict(params), **create(jax.random.key(seed))})
    return adapted, Parameters(joined, adapted.axes)


def merge_adapter(policy: Policy, params: Params) -> tuple[Policy, Params]:
    """The plain policy that computes the same, W + A B in the type of W; a policy without adapter as it is."""
    if not policy.config.lora.rank:
        return policy, params
    flat = flatten_dict(params)
    merged = {path: leaf for path, leaf in flat.items() if not is_adapter(policy.axes[path])}
    for path, a in flat.items():
        if path[-1] == "lora_a":
            *owner, adapter, _ = path
            kernel = (*owner, "kernel")
            merged[kernel] = _merged(merged[kernel], a, flat[*owner, adapter, "lora_b"])
    plain, _ = make_policy(dataclasses.replace(policy.config, lora=LoraConfig()))
    return plain, Parameters(unflatten_dict(merged), plain.axes)


@jax.jit
def _merged(kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """[..., in, out], [..., in, rank], [..., rank, out] -> like the kernel."""
    product = jnp.matmul(a, b, precision="highest")
    return (kernel.astype(product.dtype) + product).astype(kernel.dtype)
