"""T5 as a Hugging Face folder: the names of its tensors, and its config.json."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.hf import Weight
from wpauc_jax.models.hf_config import Stored
from wpauc_jax.models.t5 import BUCKETS, MAX_DISTANCE, START

if TYPE_CHECKING:  # a second that only an export spends
    from transformers import PretrainedConfig

_ATTENTION = {"q": "q", "k": "k", "v": "v", "out": "o"}
_FFN = {"up": "wi", "down": "wo"}


def weights(path: str, num_layers: int) -> Iterator[Weight]:
    """The tensor that is the parameter at `path`, such as "decoder.layers.3.cross.q.kernel"."""
    yield Weight(_name(path), path, None, transposed=path.endswith("kernel"))


def _name(path: str) -> str:
    if path == "embed":
        return "shared.weight"
    side, part, *inside = path.split(".")
    if part == "distance_bias":
        return f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    if part == "norm":
        return f"{side}.final_layer_norm.weight"
    number, sublayer, *rest = inside
    last = {"encoder": 1, "decoder": 2}[side]
    place, names, module = {
        "attention": (0, _ATTENTION, "SelfAttention"),
        "cross": (1, _ATTENTION, "EncDecAttention"),
        "ffn": (last, _FFN, "DenseReluDense"),
    }[sublayer.removesuffix("_norm")]
    own = "layer_norm" if sublayer.endswith("_norm") else f"{module}.{names[rest[0]]}"
    return f"{side}.block.{number}.layer.{place}.{own}.weight"


def hf_config(config: ModelConfig, *, dtype: str) -> "PretrainedConfig":
    """The config.json of a model."""
    from transformers import T5Config

    own: dict[str, Any] = {
        "architectures": ["T5ForConditionalGeneration"],
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "d_kv": config.head_dim,
        "d_ff": config.ffn_width,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": BUCKETS,
        "relative_attention_max_distance": MAX_DISTANCE,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,  # which also says that states are scaled before the head
        "decoder_start_token_id": START,
    }
    return T5Config(**own)


def model_config(stored: Stored, settings: ModelConfig) -> ModelConfig:
    """`settings` with the shape of a config.json that `hf_config` made.

    Raises PretrainedError where it is of another kind of T5, naming the field.
    """
    width, heads = stored.whole("d_model"), stored.whole("num_heads")
    for name, value in (("feed_forward_proj", "relu"), ("tie_word_embeddings", True)):
        if stored.get(name) != value:
            raise stored.error(f"{name}={stored.get(name)!r} is not supported; {value!r} is")
    return dataclasses.replace(
        settings,
        family="t5",
        num_layers=stored.whole("num_layers"),
        width=width,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=stored.whole("d_kv"),
        ffn_width=stored.whole("d_ff"),
        vocab_size=stored.whole("vocab_size"),
        norm_eps=stored.number("layer_norm_epsilon", 1e-6, low=0, high=1),
    )
