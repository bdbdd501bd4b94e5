"""Hugging Face's names for what this package has: settings of a config.json, and weights.

Two families, which differ in nothing but a bias and the rotary frequencies: Qwen2 / Qwen2.5, and Llama 3 / SmolLM2.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wpauc_jax.config import ModelConfig, RopeScalingConfig

if TYPE_CHECKING:  # a second that only runs with a pretrained model spend
    from transformers import GenerationConfig, PretrainedConfig

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
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


class PretrainedError(ValueError):
    """A checkpoint folder that cannot be used; the message names the file, the setting or the weights."""


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


def read_config(folder: pathlib.Path) -> "PretrainedConfig":
    """The config.json of `folder`. Raises PretrainedError where it is missing, damaged or of another family."""
    from transformers import AutoConfig

    path = folder / "config.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PretrainedError(
            f"{path} cannot be read ({error}); model.pretrained needs a Hugging Face folder"
        ) from error
    family = stored.get("model_type")
    if family not in ("qwen2", "llama"):
        raise PretrainedError(f"{path}: model_type={family!r} is not supported; qwen2 and llama are")
    missing = [name for name in _REQUIRED if name not in stored]
    if missing:
        raise PretrainedError(f"{path}: {', '.join(missing)} missing")
    return AutoConfig.from_pretrained(folder)


def model_config(hf: "PretrainedConfig", settings: ModelConfig) -> ModelConfig:
    """`settings` with the shape that `hf` describes; how to compute (dtype, remat and so on) stays `settings`'.

    Raises PretrainedError for a setting that this decoder does not have, naming it.
    """
    unsupported = {
        "hidden_act": hf.hidden_act != "silu",
        "use_sliding_window": getattr(hf, "use_sliding_window", False),
        "mlp_bias": getattr(hf, "mlp_bias", False),
        "attention_bias": getattr(hf, "attention_bias", False),  # Llama's, which is on the output as well
    }
    wrong = [f"{name}={getattr(hf, name)!r}" for name, is_wrong in unsupported.items() if is_wrong]
    if wrong:
        raise PretrainedError(f"config.json: {', '.join(wrong)} is not supported")
    return dataclasses.replace(
        settings,
        num_layers=hf.num_hidden_layers,
        width=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_key_value_heads,
        head_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
        ffn_width=hf.intermediate_size,
        vocab_size=hf.vocab_size,
        rope_theta=hf.rope_parameters["rope_theta"],
        rope_scaling=_rope_scaling(hf.rope_parameters),
        norm_eps=hf.rms_norm_eps,
        attention_bias=hf.model_type == "qwen2",
        tie_embeddings=hf.tie_word_embeddings,
        init_std=hf.initializer_range,
    )


def hf_config(config: ModelConfig, *, dtype: str, source: "PretrainedConfig | None" = None) -> "PretrainedConfig":
    """The config.json of a model, the inverse of `model_config`.

    `source` gives what the model does not know of, such as the context length and special tokens.
    """
    from transformers import LlamaConfig, Qwen2Config

    family, name = (Qwen2Config, "Qwen2ForCausalLM") if config.attention_bias else (LlamaConfig, "LlamaForCausalLM")
    known = source.to_dict() if source is not None and source.model_type == family.model_type else {}
    known = {key: value for key, value in known.items() if key not in ("transformers_version", "model_type")}
    own: dict[str, Any] = {
        "architectures": [name],
        "dtype": dtype,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "intermediate_size": config.ffn_width,
        "vocab_size": config.vocab_size,
        "rope_parameters": _rope_parameters(config),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }
    if not config.attention_bias or config.head_dim != config.width // config.num_heads:
        own["head_dim"] = config.head_dim  # Qwen2Config has no such field of its own, but its model reads it
    return family(**{**known, **own})


def generation_config(config: "PretrainedConfig", source: pathlib.Path | None, **changes: Any) -> "GenerationConfig":
    """The generation_config.json of the folder `source`; without one, what `config` says of special tokens."""
    from transformers import GenerationConfig

    if source is not None and (source / "generation_config.json").exists():
        found = GenerationConfig.from_pretrained(source)
    else:
        found = GenerationConfig.from_model_config(config)
    found.update(**changes)
    return found


def _rope_scaling(parameters: dict[str, Any]) -> RopeScalingConfig:
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        return RopeScalingConfig()
    if kind != "llama3":
        raise PretrainedError(f"config.json: rope_type={kind!r} is not supported; default and llama3 are")
    return RopeScalingConfig(
        kind="llama3",
        factor=parameters["factor"],
        low_freq_factor=parameters["low_freq_factor"],
        high_freq_factor=parameters["high_freq_factor"],
        original_length=parameters["original_max_position_embeddings"],
    )


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling.kind == "none":
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "rope_type": scaling.kind,
        "rope_theta": config.rope_theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }
