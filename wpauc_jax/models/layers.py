"""How a decoder keeps its layers, runs them one after another, and computes them again in the backward pass.

`LAYERS` and `REMAT` say what each value of `model.layers` and of `model.remat` means.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Body = Callable[[Any, Any, Any], tuple[Any, Any]]  # (layer, x, what is the layer's own) -> (x, out)


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """One way to keep L layers of the same shape."""

    make: Callable[[Callable[[nnx.Rngs], nnx.Module], int, nnx.Rngs], Any]  # (one layer's maker, L, rngs) -> layers
    from_stack: Callable[[Any, int], Any]  # (parameters [L, ...], L) -> parameters as this arrangement keeps them
    layer: Callable[[Any, int], Any]  # (layers, index) -> one layer
    run: Callable[[Any, Body, jax.Array, Any, int], tuple[jax.Array, Any]]  # (layers, body, x, xs, how many) -> x, outs


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def unstacked(tree: Any, count: int) -> list[Any]:
    """Leaves [L, ...] as `count` = L trees of leaves [...]. Autodiff would add up L zero-padded stacks instead."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def _unstacked_forward(tree: Any, count: int) -> tuple[list[Any], None]:
    return unstacked(tree, count), None


def _unstacked_backward(_count: int, _residuals: None, cotangents: list[Any]) -> tuple[Any]:
    return (jax.tree.map(lambda *leaves: _stacked(leaves), *cotangents),)


def _stacked(leaves: Sequence[Any]) -> Any:
    """[L, ...]; whole numbers have cotangents without a value, which JAX does not stack."""
    return np.stack(leaves) if leaves[0].dtype == jax.dtypes.float0 else jnp.stack(leaves)


unstacked.defvjp(_unstacked_forward, _unstacked_backward)


def _sequence(create: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Dict:
    """Layers by their numbers."""
    return nnx.Dict({str(index): create(rngs) for index in range(count)})


def _sequence_from_stack(stack: Any, count: int) -> dict[str, Any]:
    return {str(index): layer for index, layer in enumerate(unstacked(stack, count))}


def _layer_of_sequence(layers: Any, index: int) -> Any:
    return layers[str(index)]


def _run_sequence(layers: Any, body: Body, x: jax.Array, xs: Any, count: int) -> tuple[jax.Array, Any]:
    outs = []
    for index, layer_xs in enumerate(unstacked(xs, count)):
        x, out = body(_layer_of_sequence(layers, index), x, layer_xs)
        outs.append(out)
    return x, jax.tree.map(lambda *sides: jnp.stack(sides), *outs)


def _stack(create: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """One module whose parameters have the axis "layers" before their own."""
    layers = nnx.split_rngs(splits=count)(nnx.vmap(in_axes=0, out_axes=0)(create))(rngs)
    for _, part in nnx.iter_graph(layers):
        if isinstance(part, nnx.Variable):
            part.set_metadata(axes=("layers", *part.get_metadata("axes")))
    return layers


def _layer_of_stack(layers: Any, index: int) -> Any:
    graphdef, state = nnx.split(layers)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[index], state))


def _run_stack(layers: Any, body: Body, x: jax.Array, xs: Any, count: int) -> tuple[jax.Array, Any]:
    graphdef, state = nnx.split(layers)
    state = jax.tree.map(lambda leaf: leaf[:count], state)
    return jax.lax.scan(lambda x, inputs: body(nnx.merge(graphdef, inputs[0]), x, inputs[1]), x, (state, xs))


# By `model.layers`.
LAYERS = {
    "unrolled": Arrangement(_sequence, _sequence_from_stack, _layer_of_sequence, _run_sequence),
    "scanned": Arrangement(_stack, lambda stack, _: stack, _layer_of_stack, _run_stack),
}


def _recomputed(body: Body, policy: Callable[..., Any] | None) -> Body:
    """`body`, of whose activations the backward pass finds only what `policy` saves, and computes the others again."""

    @functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=0, policy=policy)
    def pure(graphdef: nnx.GraphDef, state: Any, x: jax.Array, xs: Any) -> tuple[Any, Any]:
        return body(nnx.merge(graphdef, state), x, xs)

    return lambda layer, x, xs: pure(*nnx.split(layer), x, xs)


# By `model.remat`: a layer's pass, as the backward pass is to find it.
REMAT: dict[str, Callable[[Body], Body]] = {
    "none": lambda body: body,
    "layer": functools.partial(_recomputed, policy=None),
    "products": functools.partial(_recomputed, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
}
