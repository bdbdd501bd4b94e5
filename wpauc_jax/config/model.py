"""Settings of the model, and of how devices share it."""

import dataclasses

from wpauc_jax.config.fields import Checked, ConfigError, at_least, choice


@dataclasses.dataclass(frozen=True)
class RopeScalingConfig(Checked, section="model.rope_scaling."):
    """How rotary frequencies are stretched for a longer context than the model was first trained on."""

    kind: str = choice("none", "llama3")
    factor: float = at_least(8.0, 1.0)  # by which the lowest frequencies are divided
    low_freq_factor: float = at_least(1.0, 0.0)  # waves longer than original_length / this are stretched in full
    high_freq_factor: float = at_least(4.0, 0.0)  # waves shorter than original_length / this stay
    original_length: int = at_least(8192, 1)  # tokens of context before

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_freq_factor >= self.high_freq_factor:
            raise ConfigError(
                f"model.rope_scaling.low_freq_factor={self.low_freq_factor} must be below "
                f"model.rope_scaling.high_freq_factor={self.high_freq_factor}"
            )


_LINEAR_MAPS = ("q", "k", "v", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig(Checked, section="model.lora."):
    """Low-rank adapters (arXiv 2106.09685) beside frozen linear maps; the product's scale is the learning rate's."""

    rank: int = at_least(0, 0)  # 0: no adapter, every parameter is trained
    targets: tuple[str, ...] = _LINEAR_MAPS  # which maps of a layer get one

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.targets) - set(_LINEAR_MAPS))
        if unknown or not self.targets:
            raise ConfigError(f"model.lora.targets={self.targets!r} must be some of {', '.join(_LINEAR_MAPS)}")


@dataclasses.dataclass(frozen=True)
class ModelConfig(Checked, section="model."):
    """A decoder of the Qwen2 and Llama families: they differ in `attention_bias` and `rope_scaling`."""

    pretrained: str = ""  # a Hugging Face folder or hub id, whose config.json then gives the shape; "": from scratch
    num_layers: int = at_least(4, 1)
    width: int = at_least(128, 1)
    num_heads: int = at_least(4, 1)
    num_kv_heads: int = at_least(2, 1)
    head_dim: int = at_least(32, 2)
    ffn_width: int = at_least(352, 1)
    vocab_size: int = at_least(0, 0)  # 0: what the catalogue needs
    rope_theta: float = 10_000.0
    rope_scaling: RopeScalingConfig = RopeScalingConfig()
    norm_eps: float = 1e-6
    attention_bias: bool = True  # on query, key and value: true in Qwen2, false in Llama
    tie_embeddings: bool = True
    init_std: float = 0.02
    dtype: str = choice("float32", "bfloat16")  # of the computation
    param_dtype: str = choice("float32", "bfloat16")
    layers: str = choice("unrolled", "scanned")  # arrays for each layer (faster), or stacks (compile faster)
    remat: str = choice("none", "layer", "products")  # recompute in the backward pass: a layer; all but its products
    gather: str = choice("pass", "step")  # what mesh.fsdp cuts becomes whole in every pass, or once a step
    attention: str = choice("xla", "cudnn", "splash")  # the prompt's kernel: cudnn on NVIDIA GPUs, splash on TPUs
    new_rows: str = choice("text", "mean")  # a new token starts as the mean of its items' title tokens, or of all
    lora: LoraConfig = LoraConfig()
    freeze: bool = False  # train nothing but the rows of new tokens and the adapter; an adapter implies it
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention == "cudnn" and self.dtype != "bfloat16":
            raise ConfigError(f"model.attention='cudnn' needs model.dtype='bfloat16' (it is {self.dtype!r})")


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked, section="mesh."):
    """How many parts the devices cut a run into; the three multiply to their number. See wpauc_jax/sharding.py."""

    data: int = at_least(0, 0)  # users; 0: what the other two leave
    fsdp: int = at_least(1, 1)  # users, and parameters along the model's width
    tensor: int = at_least(1, 1)  # heads, FFN and vocabulary
