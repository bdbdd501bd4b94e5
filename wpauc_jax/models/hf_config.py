"""The settings of a model as Hugging Face writes them: reads, checks and writes config.json and generation_config.json.

There are two families: Qwen2 with Qwen2.5, and Llama 3 with SmolLM2. They differ only in a bias and in the rotary
frequencies. These files may come from anybody. So every setting is checked as it is read, before it is used.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wpauc_jax.config import ConfigError, ModelConfig, RopeScalingConfig
from wpauc_jax.models.hf import PretrainedError, shown

if TYPE_CHECKING:  # a second that only runs with a pretrained model spend
    from transformers import GenerationConfig, PretrainedConfig

MODEL_TYPES = ("qwen2", "llama")

_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_LARGEST = {  # far beyond any model there is; what is larger is no model's
    "num_hidden_layers": 1_000,
    "hidden_size": 2**18,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**12,
    "intermediate_size": 2**21,
    "vocab_size": 2**24,
    "max_position_embeddings": 2**40,
    "original_max_position_embeddings": 2**40,
    # T5's own names
    "num_layers": 1_000,
    "num_heads": 2**12,
    "d_model": 2**18,
    "d_kv": 2**12,
    "d_ff": 2**21,
}
_KEY_VALUE_HEADS = {"qwen2": 32, "llama": None}  # where config.json does not say; None: as many as query heads
_ROPE = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"} | {
    *("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclasses.dataclass(frozen=True)
class Stored:
    """The settings of one JSON file, or of an object inside it. A null counts as absent, as in `transformers`."""

    path: pathlib.Path
    values: Mapping[str, Any]

    def error(self, what: str) -> PretrainedError:
        """The error to raise, with the file's name."""
        return PretrainedError(f"{self.path}: {what}")

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it stands there."""
        value = self.values.get(name)
        return default if value is None else value

    def whole(self, name: str, default: int | None = None, *, low: int = 1) -> int:
        """A whole number from `low` on, of a size that a model can have."""
        value, high = self.get(name, default), _LARGEST[name]
        if type(value) is not int or not low <= value <= high:
            raise self.error(f"{name}={shown(value)} must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """A finite number between two bounds."""
        value = self.get(name, default)
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise self.error(f"{name}={shown(value)} must be a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self.get(name, default)
        if type(value) is not bool:
            raise self.error(f"{name}={shown(value)} must be true or false")
        return value

    def special_tokens(self) -> dict[str, int | list[int] | None]:
        """The ids of the special tokens that are named; None for one that is said to be none (null, or below 0)."""
        found: dict[str, int | list[int] | None] = {}
        for name in _SPECIAL_TOKENS:
            value = self.values.get(name)
            ids = value if isinstance(value, list) and name == "eos_token_id" else [] if value is None else [value]
            if any(type(token) is not int or token >= 2**31 for token in ids):
                raise self.error(f"{name}={shown(value)} must be the number of a token")
            ids = [token for token in ids if token >= 0]
            if name in self.values:
                found[name] = None if not ids else ids if isinstance(value, list) else ids[0]
        return found


def read_json(path: pathlib.Path) -> Stored:
    """The object in a JSON file. Raises PretrainedError where it cannot be read or is no object."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PretrainedError(
            f"{path} cannot be read ({error}); model.pretrained needs a Hugging Face folder"
        ) from error
    if not isinstance(stored, dict):
        raise PretrainedError(f"{path} holds {shown(stored)}, not an object of settings")
    return Stored(path, stored)


def read_config(folder: pathlib.Path) -> Stored:
    """The config.json of `folder`. Raises PretrainedError where it is missing, damaged or of another family."""
    stored = read_json(folder / "config.json")
    family = stored.get("model_type")
    if family not in MODEL_TYPES:
        raise stored.error(f"model_type={shown(family)} is not supported; {' and '.join(MODEL_TYPES)} are")
    missing = [name for name in _REQUIRED if stored.get(name) is None]
    if missing:
        raise stored.error(f"{', '.join(missing)} missing")
    return stored


def model_config(stored: Stored, settings: ModelConfig) -> ModelConfig:
    """`settings` with the shape that a config.json describes; how to compute (dtype, remat, ...) stays `settings`'.

    What is absent is what `transformers` takes it to be.

    Raises PretrainedError for a setting that this decoder does not have or that is no model's, naming it.
    """
    _check_supported(stored)
    width, heads = stored.whole("hidden_size"), stored.whole("num_attention_heads")
    if stored.get("head_dim") is None and width % heads:
        raise stored.error(f"hidden_size={width} is not a multiple of num_attention_heads={heads}")
    head_dim = stored.whole("head_dim", width // heads, low=2)
    if head_dim % 2:
        raise stored.error(f"a head of {head_dim} dimensions must be even: rotary positions turn pairs")
    family = stored.get("model_type")
    kv_heads = stored.whole("num_key_value_heads", _KEY_VALUE_HEADS[family] or heads)
    if heads % kv_heads:
        raise stored.error(f"num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}")
    theta, scaling = _rope(stored)
    shape: dict[str, Any] = dict(
        num_layers=stored.whole("num_hidden_layers"),
        width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_width=stored.whole("intermediate_size"),
        vocab_size=stored.whole("vocab_size"),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=stored.number("rms_norm_eps", 1e-6, low=0, high=1),
        attention_bias=family == "qwen2",
        tie_embeddings=stored.flag("tie_word_embeddings", False),
        init_std=stored.number("initializer_range", 0.02, low=0, high=10),
    )
    try:
        return dataclasses.replace(settings, **shape)
    except ConfigError as error:  # each number alone is a model's, but not all of them together
        raise stored.error(str(error)) from error


def hf_config(config: ModelConfig, *, dtype: str, source: Stored | None = None) -> "PretrainedConfig":
    """The config.json of a model, the inverse of `model_config`.

    `source` gives what the model does not know of: the context length and special tokens.

    Raises PretrainedError where the family's settings in `transformers` cannot say what the model is.
    """
    from transformers import LlamaConfig, Qwen2Config

    family, name = (Qwen2Config, "Qwen2ForCausalLM") if config.attention_bias else (LlamaConfig, "LlamaForCausalLM")
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
    if source is not None:
        own |= source.special_tokens()
        if source.get("max_position_embeddings") is not None:
            own["max_position_embeddings"] = source.whole("max_position_embeddings")
    try:
        return family(**own)
    except Exception as error:  # of whatever kind: these classes check themselves in many ways
        reason = " ".join(str(error).split())
        raise PretrainedError(f"this model has no config.json as a {name}: {reason}") from error


def generation_config(
    config: "PretrainedConfig", source: pathlib.Path | None, settings: Mapping[str, Any]
) -> "GenerationConfig":
    """A generation_config.json of special tokens and `settings`, and nothing else.

    The special tokens are those of the folder `source`, in its generation_config.json or else its config.json. How a
    model was meant to sample there is no matter of the model that was trained since.
    """
    from transformers import GenerationConfig

    tokens = {name: getattr(config, name, None) for name in (*_SPECIAL_TOKENS, "decoder_start_token_id")}
    if source is not None and (source / "generation_config.json").exists():
        tokens |= read_json(source / "generation_config.json").special_tokens()
    return GenerationConfig(**{**tokens, **settings})


def _check_supported(stored: Stored) -> None:
    """Raises PretrainedError for what would make another model of the same weights."""
    layers = stored.get("layer_types", [])
    unsupported = {
        "hidden_act": stored.get("hidden_act", "silu") != "silu",
        "use_sliding_window": stored.get("use_sliding_window", False),
        "mlp_bias": stored.get("mlp_bias", False),
        "attention_bias": stored.get("attention_bias", False),  # Llama's, which is on the output as well
        "use_mrope": stored.get("use_mrope", False),
        "is_causal": stored.get("is_causal", True) is not True,
        "partial_rotary_factor": stored.get("partial_rotary_factor", 1) != 1,
        "quantization_config": stored.get("quantization_config") is not None,
        "layer_types": not isinstance(layers, list) or any(kind != "full_attention" for kind in layers),
    }
    wrong = [f"{name}={shown(stored.get(name))}" for name, is_wrong in unsupported.items() if is_wrong]
    if wrong:
        raise stored.error(f"{', '.join(wrong)} is not supported")


def _rope(stored: Stored) -> tuple[float, RopeScalingConfig]:
    """The base of the rotary frequencies and how they are scaled; older files say it in fields of their own."""
    older, newer = stored.get("rope_scaling") or {}, stored.get("rope_parameters") or {}
    for name, value in (("rope_scaling", older), ("rope_parameters", newer)):
        if not isinstance(value, dict):
            raise stored.error(f"{name}={shown(value)} must be an object")
    if older and newer and older != newer:
        raise stored.error("rope_scaling and rope_parameters say different things; delete one of them")
    rope = Stored(stored.path, older or newer)
    theta = Stored(stored.path, {"rope_theta": rope.get("rope_theta", stored.get("rope_theta"))})
    base = theta.number("rope_theta", 1e4, low=1, high=1e15)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPE_TYPES:
        raise stored.error(f"rope_type={shown(kind)} is not supported; {' and '.join(_ROPE_TYPES)} are")
    unknown = sorted(set(rope.values) - _ROPE)
    if unknown or rope.get("partial_rotary_factor", 1) != 1:
        name = unknown[0] if unknown else "partial_rotary_factor"
        raise stored.error(f"{name}={shown(rope.get(name))} of the rotary positions is not supported")
    return base, _ROPE_TYPES[kind](stored, rope)


def _unscaled(stored: Stored, rope: Stored) -> RopeScalingConfig:
    return RopeScalingConfig()


def _llama3(stored: Stored, rope: Stored) -> RopeScalingConfig:
    factors = ("factor", "low_freq_factor", "high_freq_factor")
    missing = [name for name in factors if rope.get(name) is None]
    if missing:
        raise stored.error(f"rope_type='llama3' needs {', '.join(missing)}")
    # In this order of precedence, as `transformers` has it.
    lengths = [(stored, "original_max_position_embeddings"), (rope, "original_max_position_embeddings")]
    lengths += [(stored, "max_position_embeddings")]
    length = next((place.whole(name) for place, name in lengths if place.get(name) is not None), None)
    if length is None:
        raise stored.error("rope_type='llama3' needs original_max_position_embeddings")
    factor, low, high = (rope.number(name, 1, low=low, high=1e6) for name, low in zip(factors, (1, 0, 0), strict=True))
    if low >= high:
        raise stored.error(f"low_freq_factor={low} must be below high_freq_factor={high}")
    return RopeScalingConfig("llama3", factor, low, high, length)


# By rope_type: (config.json, its part on rotary positions) -> settings.
_ROPE_TYPES = {"default": _unscaled, "llama3": _llama3}


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    return _ROPE_PARAMETERS[config.rope_scaling.kind](config.rope_scaling) | {"rope_theta": config.rope_theta}


def _llama3_parameters(scaling: RopeScalingConfig) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }


# By `model.rope_scaling.kind`: what config.json says of it.
_ROPE_PARAMETERS: dict[str, Callable[[RopeScalingConfig], dict[str, Any]]] = {
    "none": lambda scaling: {"rope_type": "default"},
    "llama3": _llama3_parameters,
}
