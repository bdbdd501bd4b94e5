"""Settings of the model, and of how devices share it."""

import dataclasses

from wpauc_jax.config.fields import Checked, ConfigError, a_path, a_seed, above, at_least, choice, shown


@dataclasses.dataclass(frozen=True)
class RopeScalingConfig(Checked, section="model.rope_scaling."):
    """How rotary frequencies are stretched for a longer context than the model was first trained on."""

    kind: str = choice("none", "llama3")  # none: not at all; llama3: as Llama 3.1 does
    factor: float = at_least(8.0, 1.0, 1e6)  # the lowest frequencies are divided by it
    low_freq_factor: float = above(1.0, 0.0, 1e6)  # waves longer than original_length / this are stretched in full
    high_freq_factor: float = above(4.0, 0.0, 1e6)  # waves shorter than original_length / this stay as they are
    original_length: int = at_least(8192, 1)  # tokens of context before the stretching

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_freq_factor >= self.high_freq_factor:
            raise ConfigError(
                f"model.rope_scaling.low_freq_factor={self.low_freq_factor} must be below "
                f"model.rope_scaling.high_freq_factor={self.high_freq_factor}"
            )


ONE_TOKEN_FAMILIES = ("sasrec", "gru4rec", "caser", "hstu")  # whose items can only be one token each
_MOST_PARAMETERS = 10**12  # more than any machine that this trainer was made for holds
_LINEAR_MAPS = ("q", "k", "v", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig(Checked, section="model.lora."):
    """Low-rank adapters (arXiv 2106.09685) beside frozen linear maps; the product's scale is the learning rate's."""

    rank: int = at_least(0, 0, 65_536)  # 0: no adapter, every parameter is trained
    targets: tuple[str, ...] = _LINEAR_MAPS  # which maps of a layer get an adapter

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.targets) - set(_LINEAR_MAPS)
        if unknown or not self.targets or len(set(self.targets)) < len(self.targets):
            raise ConfigError(
                f"model.lora.targets={shown(self.targets)} must be some of {', '.join(_LINEAR_MAPS)}, each once"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig(Checked, section="model."):
    """The network. A setting that its family does not use must be left at its default.

    `decoder` is the Qwen2 and Llama kind: they differ in `attention_bias` and `rope_scaling`.
    """

    # The kind of network, a name in models.FAMILIES. decoder: a language model. t5: an encoder-decoder, trained from
    # scratch. The others are sequential recommenders, for items of one token.
    family: str = choice("decoder", "t5", *ONE_TOKEN_FAMILIES)
    # A Hugging Face folder or hub id, whose config.json then gives the shape. Empty: a model from scratch.
    pretrained: str = a_path()
    num_layers: int = at_least(4, 1, 1000)  # blocks of attention and FFN; t5: of the encoder, and as many again
    width: int = at_least(128, 1, 262_144)  # numbers that a token is in the residual stream
    num_heads: int = at_least(4, 1, 4096)  # query heads
    num_kv_heads: int = at_least(2, 1, 4096)  # key and value heads; query heads share them in equal parts
    head_dim: int = at_least(32, 2, 8192)  # numbers in a head, even
    ffn_width: int = at_least(352, 1, 1_048_576)  # numbers in the FFN's middle; gru4rec: in the recurrent state
    num_positions: int = at_least(0, 0, 1_048_576)  # sasrec, hstu: places of a history; 0: those of the longest prompt
    # hstu: biases by the time between two items, each for times a third longer than the one before; 0: none. The data
    # need a clock.
    time_buckets: int = at_least(0, 0, 4096)
    window: int = at_least(5, 1, 1024)  # caser: last items that it sees
    filters: int = at_least(16, 1, 65_536)  # caser: horizontal filters of each height
    vertical_filters: int = at_least(4, 1, 65_536)  # caser: filters along time
    vocab_size: int = at_least(0, 0, 16_777_216)  # rows of the embedding; 0: what the catalog needs
    rope_theta: float = above(10_000.0, 0.0, 1e12)  # the base of the rotary frequencies
    rope_scaling: RopeScalingConfig = RopeScalingConfig()
    norm_eps: float = above(1e-6, 0.0, 1.0)  # added to the mean square in RMSNorm
    attention_bias: bool = True  # a bias on query, key and value: true in Qwen2, false in Llama
    tie_embeddings: bool = True  # the head is the embedding, transposed
    init_std: float = at_least(0.02, 0.0, 10.0)  # the standard deviation of new weights; t5: of the embeddings
    dtype: str = choice("float32", "bfloat16")  # the type of the computation
    param_dtype: str = choice("float32", "bfloat16")  # the type of the parameters
    layers: str = choice("unrolled", "scanned")  # an array for each layer runs faster; stacks of them compile faster
    # What the backward pass computes anew instead of keeping it: nothing, a layer, or all of it but its products.
    remat: str = choice("none", "layer", "products")
    gather: str = choice("pass", "step")  # when what mesh.fsdp cuts becomes whole: in every pass, or once a step
    attention: str = choice("xla", "cudnn", "splash")  # the prompt's kernel: cudnn on NVIDIA GPUs, splash on TPUs
    # How a new token's row starts: as the mean of its items' title tokens, or as the mean of all rows.
    new_rows: str = choice("text", "mean")
    lora: LoraConfig = LoraConfig()
    freeze: bool = False  # train nothing but the rows of new tokens and the adapter; an adapter implies it
    seed: int = a_seed()  # of new weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention == "cudnn" and self.dtype != "bfloat16":
            raise ConfigError(f"model.attention='cudnn' needs model.dtype='bfloat16' (it is {self.dtype!r})")
        if self.head_dim % 2:
            raise ConfigError(f"model.head_dim={self.head_dim} must be even: rotary positions turn pairs")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} must be a multiple of model.num_kv_heads={self.num_kv_heads}"
            )
        if self._num_parameters > _MOST_PARAMETERS:
            raise ConfigError(
                f"model.num_layers={self.num_layers}, model.width={self.width}, model.num_heads={self.num_heads}, "
                f"model.head_dim={self.head_dim}, model.ffn_width={self.ffn_width} and "
                f"model.vocab_size={self.vocab_size} make {self._num_parameters:,} parameters, more than "
                f"{_MOST_PARAMETERS:,}; lower one of them"
            )

    @property
    def _num_parameters(self) -> int:
        """Roughly: the large kernels and the embedding."""
        attention = 2 * self.width * self.head_dim * (self.num_heads + self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.width * self.ffn_width) + self.vocab_size * self.width


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked, section="mesh."):
    """How many parts the devices cut a run into. The three multiply to the number of devices (docs/scaling.md)."""

    data: int = at_least(0, 0, 1_048_576)  # parts of the users; 0: what the other two leave
    fsdp: int = at_least(1, 1, 1_048_576)  # parts of the users, and of the parameters along the model's width
    tensor: int = at_least(1, 1, 1_048_576)  # parts of the heads, of the FFN and of the vocabulary
