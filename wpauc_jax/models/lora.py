"""Low-rank adapters (Hu et al., arXiv 2106.09685) on a policy: put on, and merged into the maps that they stand beside.

An adapted map is y = x W + x A B. A starts random and B at 0, so that the policy starts unchanged.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from wpauc_jax.config import LoraConfig
from wpauc_jax.models.decoder import fresh_parameters
from wpauc_jax.models.policy import Params, Policy, make_policy

ADAPTER = "lora"  # the name under which a map keeps its adapter


def is_adapter(path: tuple[str, ...]) -> bool:
    """Whether a parameter, by its place in the tree, belongs to an adapter."""
    return ADAPTER in path


def add_adapter(policy: Policy, params: Params, lora: LoraConfig, seed: int = 0) -> tuple[Policy, Params]:
    """The policy with a fresh adapter of `lora.rank` > 0; its other parameters are `params`, not copied."""
    adapted, _ = make_policy(dataclasses.replace(policy.config, lora=lora))

    @jax.jit  # where what is not the adapter's is not computed
    def create(key: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        fresh = flatten_dict(fresh_parameters(adapted.config, key))
        return {path: leaf for path, leaf in fresh.items() if is_adapter(path)}

    return adapted, unflatten_dict({**flatten_dict(params), **create(jax.random.key(seed))})


def merge_adapter(policy: Policy, params: Params) -> tuple[Policy, Params]:
    """The plain policy that computes the same, W + A B in the type of W; a policy without adapter as it is."""
    if not policy.config.lora.rank:
        return policy, params
    flat = flatten_dict(params)
    merged = {path: leaf for path, leaf in flat.items() if not is_adapter(path)}
    for path, a in flat.items():
        if path[-1] == "lora_a":
            *owner, _, _ = path
            kernel = (*owner, "kernel")
            merged[kernel] = _merged(merged[kernel], a, flat[*owner, ADAPTER, "lora_b"])
    plain, _ = make_policy(dataclasses.replace(policy.config, lora=LoraConfig()))
    return plain, unflatten_dict(merged)


@jax.jit
def _merged(kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """[..., in, out], [..., in, rank], [..., rank, out] -> like the kernel."""
    product = jnp.matmul(a, b, precision="highest")
    return (kernel.astype(product.dtype) + product).astype(kernel.dtype)
