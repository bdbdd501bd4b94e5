"""One mesh of devices with the axes data, fsdp and tensor, and where each part of a run lies on it.

Arrays are described by logical axes such as "batch" and "heads". `RULES` says once which axes of the mesh cut each
logical axis. Parameters, their moments and the reference carry their logical axes with them (see
`wpauc_jax.runtime.parameters`).

Users are cut over data and fsdp together. The candidates of one user stay together. Parameters, their moments and the
reference are cut over fsdp along the model's width. They are cut over tensor along heads, FFN width and vocabulary.
XLA's partitioner (GSPMD) derives the collectives. The constraints in this module tell it where activations belong.

The mesh is ambient (`jax.set_mesh`). Without a mesh, every function here leaves arrays on the device on which they are.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from wpauc_jax.config import ConfigError, MeshConfig, ModelConfig
from wpauc_jax.runtime.parameters import NO_AXES, Parameters, Path

T = TypeVar("T")

AXES = ("data", "fsdp", "tensor")

# What cuts a logical axis; () means that nothing does.
RULES: dict[str, tuple[str, ...]] = {
    # of data, activations and the keys and values that a prompt leaves behind
    "batch": ("data", "fsdp"),
    "group": (),
    "length": (),
    "width": (),
    "head_dim": (),
    # of parameters and activations
    "layers": (),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "ffn": ("tensor",),
    "vocab": ("tensor",),
    # of parameters alone: the model's width, gathered layer by layer where it is used
    "embed": ("fsdp",),
    "norm": (),
    # of adapters and the trained rows of the tables: small, whole everywhere
    "adapter": (),
    "new_rows": (),
}


def make_mesh(config: MeshConfig, devices: Iterable[Any] | None = None) -> jax.sharding.Mesh:
    """The mesh over all devices, or over `devices`. Raises ConfigError where its size is not their number."""
    devices = list(jax.devices() if devices is None else devices)
    rest, beyond = divmod(len(devices), config.fsdp * config.tensor)
    data = config.data or rest
    if beyond and not config.data:
        raise ConfigError(
            f"mesh.fsdp={config.fsdp} x mesh.tensor={config.tensor} does not divide the {len(devices)} devices"
        )
    shape = (data, config.fsdp, config.tensor)
    if math.prod(shape) != len(devices):
        raise ConfigError(
            f"mesh.data={data} x mesh.fsdp={config.fsdp} x mesh.tensor={config.tensor} is {math.prod(shape)} devices, "
            f"but there are {len(devices)}; leave mesh.data at 0 to take what the other two axes leave"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_sizes(model: ModelConfig, batch_sizes: Mapping[str, int]) -> None:
    """Raises ConfigError for a size that the mesh's axes do not divide, naming axis and size.

    `batch_sizes` are global batch sizes by the name of their setting.
    """
    sizes = {
        "model.num_heads": ("heads", model.num_heads),
        "model.num_kv_heads": ("kv_heads", model.num_kv_heads),
        "model.ffn_width": ("ffn", model.ffn_width),
        "model.vocab_size": ("vocab", model.vocab_size),
        "model.width": ("embed", model.width),
        **{name: ("batch", size) for name, size in batch_sizes.items()},
    }
    shape = jax.sharding.get_abstract_mesh().shape
    for name, (axis, size) in sizes.items():
        cuts = {cut: shape.get(cut, 1) for cut in RULES[axis]}
        parts = math.prod(cuts.values())
        if size % parts:
            product = " x ".join(f"mesh.{cut}={parts_of_cut}" for cut, parts_of_cut in cuts.items())
            raise ConfigError(
                f"{name}={size} does not divide into {parts} parts: {product} cut the axis {axis!r}; "
                f"the next size that does is {-(-size // parts) * parts}"
            )


def spec(*axes: str) -> PartitionSpec:
    """The partition of an array with these logical axes."""
    return PartitionSpec(*(RULES[axis] or None for axis in axes))


def constrain(x: jax.Array, *axes: str) -> jax.Array:
    """Inside jit: `x`, laid out by its logical axes. Last axes that are not named are whole."""
    return x if _no_mesh() else jax.lax.with_sharding_constraint(x, spec(*axes))


def constrain_state(state: T) -> T:
    """Inside jit: a training state or parameters, each array where its axes belong."""
    return state if _no_mesh() else jax.lax.with_sharding_constraint(state, state_specs(state))


def gather_parameters(params: T, dtype: str) -> T:
    """Inside jit: parameters cut over tensor alone; those that fsdp cuts are sent in `dtype`, their gradients cut."""

    def gather(_: Path, leaf: Any, axes: tuple[str, ...]) -> Any:
        return _gather(leaf, axes, dtype) if "embed" in axes else leaf

    return params if _no_mesh() else cast(T, cast(Parameters, params).map(gather))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, axes: tuple[str, ...], dtype: str) -> jax.Array:
    return constrain(x.astype(dtype), *("width" if axis == "embed" else axis for axis in axes))


def _gather_forward(x: jax.Array, axes: tuple[str, ...], dtype: str) -> tuple[jax.Array, jax.Array]:
    return _gather(x, axes, dtype), jnp.zeros(0, x.dtype)


def _gather_backward(axes: tuple[str, ...], _: str, like: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    """Autodiff would ask for a cotangent that is whole, as its array was; this one is summed where it belongs."""
    return (constrain(cotangent.astype(like.dtype), *axes),)


_gather.defvjp(_gather_forward, _gather_backward)


def constrain_whole(tree: T) -> T:
    """Inside jit: small results, whole on every device, so that every process can read them."""
    return jax.tree.map(lambda leaf: constrain(leaf), tree)


def by_user(function: Callable[[jax.Array], T]) -> Callable[[jax.Array], T]:
    """A function of arrays [B, ...] to arrays [B, ...] that works on each user alone, run where the users are."""
    return function if _no_mesh() else jax.shard_map(function, in_specs=spec("batch"), out_specs=spec("batch"))


def state_specs(state: Any) -> Any:
    """The partition of each array of a training state or of parameters by its axes; for jit's `out_shardings`.

    Scalars are whole. None without a mesh. Raises KeyError for an array that is not among `Parameters`.
    """

    def of(path: tuple, part: Any) -> Any:
        if isinstance(part, Parameters):
            return part.map(lambda _, leaf, axes: spec(*axes))
        if part.ndim:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise KeyError(f"{name} {tuple(part.shape)} {NO_AXES}")
        return spec()

    def is_whole(part: Any) -> bool:
        return isinstance(part, Parameters)

    return None if _no_mesh() else jax.tree_util.tree_map_with_path(of, state, is_leaf=is_whole)


def place_whole(tree: T) -> T:
    """Arrays of the host, the same in every process, as arrays that are whole on every device."""
    return tree if _no_mesh() else jax.device_put(tree, NamedSharding(jax.sharding.get_mesh(), PartitionSpec()))


def place_state(state: T) -> T:
    """Arrays, the same in every process, each where its axes belong."""
    return state if _no_mesh() else jax.device_put(state, state_shardings(state))


def state_shardings(state: Any) -> Any:
    """`state_specs` on the ambient mesh; without one, every array's sharding is the first device's."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        one = SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda _: one, state)
    return jax.tree.map(lambda part: NamedSharding(mesh, part), state_specs(state))


def batch_rows(batch_size: int) -> np.ndarray:
    """Which rows of a global batch this process's devices hold: int64, ascending.

    They need not be consecutive. Processes that share users (a tensor axis that spans processes) hold the same rows.
    """
    rows = np.arange(batch_size)
    if _no_mesh():
        return rows
    sharding = NamedSharding(jax.sharding.get_mesh(), spec("batch"))
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([rows[part] for part in parts]))


def place_batch(batch: T) -> T:
    """A global batch, any pytree, on the devices, from this process's `batch_rows` of it."""
    if _no_mesh():
        return jax.device_put(batch)
    sharding = NamedSharding(jax.sharding.get_mesh(), spec("batch"))
    return jax.make_array_from_process_local_data(sharding, batch)


def platform() -> str:
    """The kind of the mesh's devices, which need not be here, or of this process's: cpu, gpu or tpu."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def on_one_device() -> bool:
    """Whether there is no mesh, or one of a single device."""
    return _no_mesh() or jax.sharding.get_abstract_mesh().size == 1


def _no_mesh() -> bool:
    return jax.sharding.get_abstract_mesh().empty
