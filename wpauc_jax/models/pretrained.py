"""Loads a Hugging Face checkpoint onto the devices, tensor by tensor.

Each stored tensor goes straight to its shards. If layers are stacked, it goes to its place in the stack. Files are
mapped into memory. A process copies only the parts that its devices hold, and of one tensor at a time. So the host
never holds more.
"""

import dataclasses
import functools
import gc
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from safetensors import SafetensorError, safe_open

from wpauc_jax.config import ConfigError, LoraConfig, ModelConfig
from wpauc_jax.models import t5_hf
from wpauc_jax.models.hf import PretrainedError, Weight, is_recomputed, layer_of, shown, weights
from wpauc_jax.models.hf_config import Stored, model_config, read_config, read_json
from wpauc_jax.models.policy import Params, Policy, make_policy
from wpauc_jax.runtime.sharding import check_sizes, state_shardings

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_BLOCK = 4096  # rows compared at a time
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")  # what the hub is asked for


def load_pretrained(
    path_or_id: str | pathlib.Path,
    *,
    dtype: str | None = None,
    settings: ModelConfig | None = None,
) -> tuple[Policy, Params]:
    """A Qwen2 or Llama checkpoint of Hugging Face's as a policy and its parameters, each cut as the mesh cuts it.

    Args:
      path_or_id: a folder with config.json and safetensors files, or the name of one on the hub.
      dtype: of the parameters; None keeps what is stored (the widest, where a parameter's layers differ).
      settings: how to compute (`dtype`, `remat`, ...); neither its shape is looked at nor its adapter, which
        `add_adapter` puts on.

    Raises:
      PretrainedError: the folder is not there, is of another family or damaged, or its weights are not the model's;
        every missing, unexpected or mis-shaped weight is named.
      ConfigError: the mesh does not divide the model, or `settings` are of another family.
    """
    if settings and settings.family != "decoder":
        raise ConfigError(f"model.pretrained={str(path_or_id)!r} holds a decoder, not model.family={settings.family!r}")
    folder = local_folder(path_or_id)
    described = read_config(folder)
    config = dataclasses.replace(model_config(described, settings or ModelConfig()), lora=LoraConfig())
    check_sizes(config, {})
    with _Tensors(folder) as stored:
        _check_sizes(described, stored, config)
        return _loaded(folder, stored, config, weights, dtype)


def load_t5(folder: pathlib.Path, settings: ModelConfig) -> tuple[Policy, Params]:
    """A T5 that `save_pretrained` wrote. `settings` say how to compute; their shape is not looked at.

    Raises as `load_pretrained` does.
    """
    config = t5_hf.model_config(read_json(folder / "config.json"), settings)
    check_sizes(config, {})
    with _Tensors(folder) as stored:
        return _loaded(folder, stored, config, t5_hf.weights, None)


# (a parameter's path, the number of layers) -> the tensors that it is made of.
Names = Callable[[str, int], Iterator[Weight]]


def _loaded(
    folder: pathlib.Path, stored: "_Tensors", config: ModelConfig, names: Names, dtype: str | None
) -> tuple[Policy, Params]:
    """The policy of a configuration, with the parameters that are stored."""
    policy, shapes = make_policy(config)
    wanted = {_name(path): shape for path, shape in jax.tree_util.tree_leaves_with_path(shapes)}
    shardings = {
        _name(path): sharding for path, sharding in jax.tree_util.tree_leaves_with_path(state_shardings(shapes))
    }
    _check(folder, stored, wanted, config, names)
    leaves = {path: _load(stored, path, shape.shape, dtype, shardings[path], names) for path, shape in wanted.items()}
    return policy, jax.tree_util.tree_map_with_path(lambda path, _: leaves[_name(path)], shapes)


def local_folder(path_or_id: str | pathlib.Path) -> pathlib.Path:
    """The folder of a checkpoint, fetched from the hub (or found in its cache) where it is no local one.

    Raises PretrainedError where there is neither.
    """
    folder = pathlib.Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    try:
        return pathlib.Path(snapshot_download(str(path_or_id), allow_patterns=list(_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise PretrainedError(
            f"model.pretrained={str(path_or_id)!r} is neither a folder nor a model that the hub gives out ({error})"
        ) from error


def _index(folder: pathlib.Path) -> dict[str, str]:
    """The file of each tensor by the index of a checkpoint in several files; empty where there is none.

    Files lie beside the index, by a plain name. Such a file may be a symbolic link, as in the hub's own cache, where
    every file is one: whoever made the folder made the link. What the index says leads nowhere else.
    """
    if not (folder / _INDEX).exists():
        return {}
    stored = read_json(folder / _INDEX)
    files = stored.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise stored.error("weight_map must name the file of each tensor")
    for tensor, name in files.items():
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\\0"):
            raise stored.error(
                f"weight_map says {shown(tensor)} is in {shown(name)}; it must be the name of a "
                ".safetensors file beside it"
            )
    if (folder / _WHOLE).exists() and _WHOLE not in files.values():
        raise PretrainedError(f"{folder} holds {_WHOLE} and {_INDEX} of other files; delete the one that is not meant")
    return files


class _Tensors:
    """The tensors of a folder's safetensors files, which are mapped: what is copied of one is what is asked for."""

    def __init__(self, folder: pathlib.Path):
        index = _index(folder)
        names = sorted(set(index.values())) or [_WHOLE]
        try:
            self._files = {name: safe_open(folder / name, "np") for name in names}
        except (OSError, ValueError, SafetensorError) as error:
            raise PretrainedError(f"{folder} holds no whole safetensors checkpoint ({error})") from error
        inside = {name: set(file.keys()) for name, file in self._files.items()}
        self._of = {tensor: self._files[name] for name, tensors in inside.items() for tensor in tensors}
        for tensor, name in index.items():  # if a tensor lies in two files, this says which one counts
            if tensor not in inside[name]:
                raise PretrainedError(f"{folder / _INDEX}: {name} has no tensor {shown(tensor)}")
            self._of[tensor] = self._files[name]
        self._of = {tensor: file for tensor, file in self._of.items() if not is_recomputed(tensor)}

    def __enter__(self) -> "_Tensors":
        return self

    def __exit__(self, *error: Any) -> None:
        for file in self._files.values():
            file.__exit__(*error)

    @property
    def names(self) -> set[str]:
        return set(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """A name that NumPy knows, or the file's own where it is none of a parameter's."""
        stored = self._of[name].get_slice(name).get_dtype()
        return _DTYPES.get(stored, stored)

    def read(self, name: str, sharding: Sharding) -> jax.Array:
        """The tensor on its devices, each shard read by itself, when the host's copy of it is not needed any more."""
        gc.collect(1)  # when JAX lets go of the host's copy of the tensor before, aged by a collection or not
        shape, tensor = self.shape(name), self._of[name].get_slice(name)

        @functools.cache  # devices with the same part share its copy
        def part(*cuts: tuple[int, int]) -> np.ndarray:
            return tensor[tuple(slice(*cut) for cut in cuts)]

        def bounds(index: Any) -> Iterator[tuple[int, int]]:
            return (cut.indices(size)[:2] for cut, size in zip(index, shape, strict=True))

        return jax.make_array_from_callback(shape, sharding, lambda index: part(*bounds(index))).block_until_ready()

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same numbers, compared a block of rows at a time."""
        if self.shape(one) != self.shape(other):
            return False
        a, b = (self._of[name].get_slice(name) for name in (one, other))
        ends = [*range(0, self.shape(one)[0], _BLOCK), self.shape(one)[0]]
        return all(np.array_equal(a[start:end], b[start:end]) for start, end in itertools.pairwise(ends))


def _check_sizes(described: Stored, stored: _Tensors, config: ModelConfig) -> None:
    """Raises PretrainedError where config.json speaks of another model than the tensors, before that one is made."""
    layers = {layer_of(name) for name in stored.names} - {None}
    if layers and len(layers) != config.num_layers:
        raise described.error(f"num_hidden_layers={config.num_layers}, but the weights have {len(layers)} layers")
    table = "model.embed_tokens.weight"
    shape = (config.vocab_size, config.width)
    if table in stored.names and stored.shape(table) != shape:
        raise described.error(
            f"vocab_size={shape[0]} and hidden_size={shape[1]}, but {table} is {list(stored.shape(table))}"
        )


def _check(
    folder: pathlib.Path,
    stored: _Tensors,
    wanted: dict[str, jax.ShapeDtypeStruct],
    config: ModelConfig,
    names: Names,
) -> None:
    """Raises PretrainedError that lists what is missing, unexpected, of another shape or of an unusable type."""
    parts = [part for path in wanted for part in names(path, config.num_layers)]
    shapes = {part.name: _stored_shape(wanted[part.path].shape, part) for part in parts}
    extra = stored.names - shapes.keys()
    if (
        config.tie_embeddings
        and "lm_head.weight" in extra
        and stored.equal("lm_head.weight", "model.embed_tokens.weight")
    ):
        extra.remove("lm_head.weight")  # tied and stored twice
    both = sorted(stored.names & shapes.keys())
    wrong = [f"{name}: missing, wanted as {list(shapes[name])}" for name in sorted(shapes.keys() - stored.names)]
    wrong += [f"{name}: unexpected, found as {list(stored.shape(name))}" for name in sorted(extra)]
    wrong += [
        f"{name}: {list(stored.shape(name))}, wanted as {list(shapes[name])}"
        for name in both
        if stored.shape(name) != shapes[name]
    ]
    wrong += [
        f"{name}: stored as {stored.dtype(name)}; {', '.join(_DTYPES)} can be read"
        for name in both
        if stored.dtype(name) not in _DTYPES.values()
    ]
    if wrong:
        raise PretrainedError("\n  ".join([f"{folder} holds other weights than its config.json says:", *wrong]))


def _stored_shape(shape: tuple[int, ...], part: Weight) -> tuple[int, ...]:
    own = shape if part.layer is None else shape[1:]
    return own[::-1] if part.transposed else own


def _load(
    stored: _Tensors, path: str, shape: tuple[int, ...], dtype: str | None, sharding: Sharding, names: Names
) -> jax.Array:
    """One parameter; stacked layers are written one by one into a stack that is updated in place."""
    parts = list(names(path, shape[0] if shape else 0))
    kind = jnp.dtype(dtype) if dtype else jnp.result_type(*{jnp.dtype(stored.dtype(part.name)) for part in parts})
    if parts[0].layer is None:
        put = jax.jit(_turned, static_argnames=("transposed", "kind"), out_shardings=sharding)
        piece = stored.read(parts[0].name, _of_stored(sharding, parts[0]))
        return put(piece, transposed=parts[0].transposed, kind=kind).block_until_ready()
    put = jax.jit(_put_layer, donate_argnums=0, static_argnames="transposed", out_shardings=sharding)
    stack = jnp.zeros(shape, kind, device=sharding)
    for part in parts:
        stack = put(stack, stored.read(part.name, _of_stored(sharding, part)), part.layer, transposed=part.transposed)
        stack.block_until_ready()  # otherwise the host would run ahead and hold a piece for each layer
    return stack


def _of_stored(sharding: Sharding, part: Weight) -> Sharding:
    """A parameter's sharding as that of its stored tensor, which is one layer of a stack and may be transposed."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    axes = tuple(sharding.spec)[part.layer is not None :]
    return NamedSharding(sharding.mesh, PartitionSpec(*(axes[::-1] if part.transposed else axes)))


def _put_layer(stack: jax.Array, piece: jax.Array, layer: jax.Array, *, transposed: bool) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, _turned(piece, transposed=transposed, kind=stack.dtype), layer, 0)


def _turned(piece: jax.Array, *, transposed: bool, kind: jax.typing.DTypeLike) -> jax.Array:
    return (piece.T if transposed else piece).astype(kind)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
