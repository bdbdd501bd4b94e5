"""Writes a policy as a Hugging Face folder, which `transformers` loads.

Of a decoder `load_pretrained` gives back the same bits. `FORMATS` says which families have such a folder.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from safetensors.numpy import save_file

from wpauc_jax.config import ModelConfig
from wpauc_jax.models import hf, t5_hf
from wpauc_jax.models.hf import PretrainedError, Weight
from wpauc_jax.models.hf_config import generation_config, hf_config, read_config
from wpauc_jax.models.lora import merge_adapter
from wpauc_jax.models.policy import Params, Policy
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import atomic_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FILE_BYTES = 2 * 10**9


@dataclasses.dataclass(frozen=True)
class Format:
    """How a family's folder looks."""

    weights: Callable[[str, int], Iterator[Weight]]  # (a parameter's path, layers) -> its tensors
    config: Callable[[ModelConfig, str, pathlib.Path | None], "PretrainedConfig"]  # (settings, dtype, source)


def _decoder_config(config: ModelConfig, dtype: str, source: pathlib.Path | None) -> "PretrainedConfig":
    return hf_config(config, dtype=dtype, source=read_config(source) if source else None)


def _t5_config(config: ModelConfig, dtype: str, source: pathlib.Path | None) -> "PretrainedConfig":
    return t5_hf.hf_config(config, dtype=dtype)


# By `model.family`, of those that have a folder.
FORMATS = {"decoder": Format(hf.weights, _decoder_config), "t5": Format(t5_hf.weights, _t5_config)}


def save_pretrained(
    path: str | pathlib.Path,
    policy: Policy,
    params: Params,
    *,
    dtype: str | None = None,
    source: str | pathlib.Path | None = None,
    generation: Mapping[str, Any] | None = None,
    file_bytes: int = _FILE_BYTES,
    add_files: Callable[[pathlib.Path], None] | None = None,
) -> None:
    """Writes config.json, generation_config.json and safetensors files; an adapter is merged first.

    The folder appears whole or not at all; the host holds one file's weights at a time. Of several processes, all of
    which must call it, the main one writes.

    Args:
      path: the folder to make; it must not exist yet.
      dtype: of the weights; None keeps each parameter's own.
      source: the folder from which the model came, whose context length and special tokens are carried on.
      generation: what generation_config.json says beside the special tokens; it may replace those.
      file_bytes: weights beyond so many bytes go into a further file.
      add_files: called with the folder before it appears, to put more into it.

    Raises:
      FileExistsError: there is something at `path`.
      PretrainedError: `source` cannot be read, or Hugging Face has no settings for such a model.
    """
    if policy.config.family not in FORMATS:
        raise PretrainedError(f"a model of model.family={policy.config.family!r} has no Hugging Face folder")
    form = FORMATS[policy.config.family]
    policy, params = merge_adapter(policy, params)
    source = pathlib.Path(source) if source else None
    leaves = {".".join(name): leaf for name, leaf in flatten_dict(params).items()}
    parts = [part for name in leaves for part in form.weights(name, policy.config.num_layers)]
    kind = dtype or next(str(leaf.dtype) for name, leaf in leaves.items() if name.endswith("kernel"))
    config = form.config(policy.config, kind, source)

    def fetch(part: Weight) -> np.ndarray:
        return _tensor(leaves[part.path], part, dtype)

    if not is_main_process():
        for part in parts:  # takes part in bringing each tensor together
            fetch(part)
        return
    with atomic_folder(path) as folder:
        config.save_pretrained(folder)
        generation_config(config, source, generation or {}).save_pretrained(folder)
        _write_weights(folder, parts, fetch, file_bytes)
        if add_files:
            add_files(folder)
        _follow_umask(folder)


def _tensor(leaf: jax.Array, part: Weight, dtype: str | None) -> np.ndarray:
    """One stored tensor, fetched from the devices, of whichever process they are."""
    piece = leaf if part.layer is None else leaf[part.layer]
    stored = (piece.T if part.transposed else piece).astype(dtype or leaf.dtype)
    return np.ascontiguousarray(multihost_utils.process_allgather(stored, tiled=True))


def _write_weights(
    folder: pathlib.Path, parts: Iterable[Weight], fetch: Callable[[Weight], np.ndarray], file_bytes: int
) -> None:
    """Files of about `file_bytes`, and an index where there is more than one."""
    written: list[list[str]] = []
    total, files = 0, _filled(parts, fetch, file_bytes)
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"{number}.safetensors", metadata={"format": "pt"})
        written.append(list(tensors))
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(written) == 1:
        (folder / "0.safetensors").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(written):
        file = f"model-{number + 1:05d}-of-{len(written):05d}.safetensors"
        (folder / f"{number}.safetensors").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _filled(
    parts: Iterable[Weight], fetch: Callable[[Weight], np.ndarray], file_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Tensors by name, a file's worth at a time; a tensor larger than that has a file of its own."""
    tensors: dict[str, np.ndarray] = {}
    for part in parts:
        tensor = fetch(part)
        if tensors and sum(other.nbytes for other in tensors.values()) + tensor.nbytes > file_bytes:
            yield tensors
            tensors = {}
        tensors[part.name] = tensor
    yield tensors


def _follow_umask(folder: pathlib.Path) -> None:
    """Gives all files the mode of one that is made here: some writers make theirs for the owner's eyes alone."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
