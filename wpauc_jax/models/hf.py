"""The names of tensors in a Hugging Face checkpoint, and which parameter of a decoder each of them is."""

import dataclasses
import re
import reprlib
from collections.abc import Iterator
from typing import Any

# A parameter's path in the model and its name in a checkpoint. A kernel is stored transposed.
_OUTSIDE = {"embed": "model.embed_tokens.weight", "norm.scale": "model.norm.weight", "head": "lm_head.weight"}
_IN_LAYER = {
    "attention_norm.scale": "input_layernorm.weight",
    "attention.q.kernel": "self_attn.q_proj.weight",
    "attention.q.bias": "self_attn.q_proj.bias",
    "attention.k.kernel": "self_attn.k_proj.weight",
    "attention.k.bias": "self_attn.k_proj.bias",
    "attention.v.kernel": "self_attn.v_proj.weight",
    "attention.v.bias": "self_attn.v_proj.bias",
    "attention.out.kernel": "self_attn.o_proj.weight",
    "mlp_norm.scale": "post_attention_layernorm.weight",
    "mlp.gate.kernel": "mlp.gate_proj.weight",
    "mlp.up.kernel": "mlp.up_proj.weight",
    "mlp.down.kernel": "mlp.down_proj.weight",
}

# Tables that a model computes from its settings. Older versions of `transformers` stored them beside the weights.
_RECOMPUTED = re.compile(
    r"(^|\.)(rotary_emb\.(original_)?inv_freq|rotary_emb\.(cos|sin)_cached|(self_)?attn\.(bias|masked_bias)|"
    r"attention\.(bias|masked_bias)|masked_bias|position_ids|causal_mask)$"
)


class PretrainedError(ValueError):
    """A checkpoint folder that cannot be used; the message names the file, the setting or the weights."""


def shown(value: Any) -> str:
    """A value of a file as an error shows it: at most 60 characters of it."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclasses.dataclass(frozen=True)
class Weight:
    """One tensor of a checkpoint and where it belongs."""

    name: str  # in the checkpoint
    path: str  # of the parameter
    layer: int | None  # of the parameter's leading axis; None: the parameter has none
    transposed: bool  # stored [outputs, inputs]


def weights(path: str, num_layers: int) -> Iterator[Weight]:
    """The tensors that make up the parameter at `path`.

    Stacked layers have one each ("layers.mlp.up.kernel"), any other parameter is one ("layers.3.mlp.up.kernel").
    """
    transposed = path.endswith("kernel")
    if path in _OUTSIDE:
        yield Weight(_OUTSIDE[path], path, None, transposed)
        return
    number, _, inside = path.removeprefix("layers.").partition(".")
    if number.isdecimal():
        yield Weight(f"model.layers.{number}.{_IN_LAYER[inside]}", path, None, transposed)
        return
    name = _IN_LAYER[path.removeprefix("layers.")]
    for layer in range(num_layers):
        yield Weight(f"model.layers.{layer}.{name}", path, layer, transposed)


def is_recomputed(name: str) -> bool:
    """Whether a stored tensor is a table that the model makes itself, such as `rotary_emb.inv_freq`."""
    return bool(_RECOMPUTED.search(name))


def layer_of(name: str) -> int | None:
    """The layer that a stored tensor belongs to; None for one outside the layers."""
    found = re.match(r"model\.layers\.(\d{1,9})\.", name)
    return int(found[1]) if found else None
