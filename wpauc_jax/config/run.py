"""Every setting of a run, as frozen dataclasses that check themselves.

`configs/*.py` turn these into ConfigDicts for the command line, and `main` turns what the command line made of them
back (see `wpauc_jax.config`). Below `main` only these dataclasses are seen.
"""

import dataclasses
import datetime
import pathlib

from wpauc_jax.config.fields import Checked, ConfigError, at_least, choice


@dataclasses.dataclass(frozen=True)
class SyntheticConfig(Checked, section="data.synthetic."):
    """data.source=synthetic: a world whose law is known; `data/sources/synthetic.py` states it."""

    num_users: int = at_least(2000, 1)
    num_items: int = at_least(200, 2)
    num_topics: int = at_least(10, 1)
    num_kinds: int = at_least(6, 1)  # of users
    follow: float = at_least(0.2, 0.0)  # how often the next item is the last one's successor
    stay: float = at_least(0.1, 0.0)  # how often a drawn item is of the last one's topic
    skew: float = at_least(1.0, 0.0)  # of an item's popularity in its topic: the exponent of Zipf's law
    shortest: int = at_least(5, 1)  # interactions of a user
    longest: int = at_least(20, 1)
    seed: int = at_least(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_topics > self.num_items:
            raise ConfigError(
                f"data.synthetic.num_topics={self.num_topics} is more than data.synthetic.num_items={self.num_items}"
            )
        if self.longest < self.shortest:
            raise ConfigError(f"data.synthetic.longest={self.longest} is below data.synthetic.shortest={self.shortest}")
        for name in ("follow", "stay"):
            if getattr(self, name) >= 1:
                raise ConfigError(
                    f"data.synthetic.{name}={getattr(self, name)} must be below 1: a user's kind must show"
                )


_KEEP_ALL = {  # the settings of DataConfig that drop rows, and the values with which they do not
    **{"k_core": 0, "repeats": "keep", "start": "", "end": ""},
    **{"require_title": False, "drop_markup": False, "title_words": 0},
}


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked, section="data."):
    """Where interactions come from and how they become training rows."""

    source: str = choice(
        "auto", "amazon", "minionerec", "movielens", "recbole", "sequences", "tabular", "yelp", "synthetic"
    )  # auto: by the names and the first line of the files
    root: str = ""  # a folder that holds several data sets; a relative path starts there
    path: str = ""  # a file or folder
    archive: str = ""  # where path is empty: a public data set to fetch, a name in data/archives.py
    cache: str = ""  # downloads; "" is $XDG_CACHE_HOME/wpauc_jax or ~/.cache/wpauc_jax
    dir: str = ""  # the prepared directory; "" is <workdir>/data
    user_column: str = "user_id"  # tabular: the names of columns; time_column "": the order of rows is that of time
    item_column: str = "item_id"
    time_column: str = "timestamp"
    title_column: str = "title"
    items_path: str = ""  # amazon, tabular: the file that describes items, from the folder of the interactions on
    time_unit: str = choice("s", "ms")  # tabular: what numbers in time_column count since 1970
    bad_rows: str = choice("error", "skip")  # a row that cannot be read: an error, or left out and counted
    start: str = ""  # keep interactions from this date on (UTC, as in 2016-10-01)
    end: str = ""  # and before this one
    require_title: bool = False  # drop items without a title
    drop_markup: bool = False  # drop items whose title holds HTML
    title_words: int = at_least(0, 0)  # drop items with more words in the title; 0: keep all
    k_core: int = at_least(5, 0)  # drop users and items with fewer interactions, to the fixed point; 0: keep all
    repeats: str = choice("keep", "first")  # an item that a user meets again: keep it, or only the first time
    split: str = choice(
        "leave_one_out", "chronological", "published"
    )  # 8:1:1 by time over all samples; as the files say
    max_history: int = at_least(10, 1)  # items of history in a prompt
    synthetic: SyntheticConfig = SyntheticConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, value in (("split", "published"), ("source", "synthetic")):
            dropping = [name for name, keep in _KEEP_ALL.items() if getattr(self, name) != keep]
            if getattr(self, field) == value and dropping:
                mend = " and ".join(
                    f"data.{name}={_KEEP_ALL[name]!r} (it is {getattr(self, name)!r})" for name in dropping
                )
                raise ConfigError(f"data.{field}={value!r} keeps every row: set {mend}")
        for name in ("start", "end"):
            if not _is_date(getattr(self, name)):
                raise ConfigError(f"data.{name}={getattr(self, name)!r} is not a date such as 2016-10-01")

    @property
    def location(self) -> str:
        """`path`, from `root` on where one is set."""
        return str(pathlib.Path(self.root, self.path)) if self.root and self.path else self.path


def _is_date(text: str) -> bool:
    try:
        return not text or (len(text) == len("2016-10-01") and bool(datetime.date.fromisoformat(text)))
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class CatalogConfig(Checked, section="catalog."):
    """How an item becomes a token sequence."""

    ids: str = choice("kmeans", "file", "title")
    tokenizer: str = ""  # a folder or hub id; "" is model.pretrained's; without either, ids are all the vocabulary
    max_title_tokens: int = at_least(32, 8)  # a longer title is cut
    path: str = ""  # ids=file: a RecBole .sid file
    embedding: str = "text+cooccurrence"  # text | cooccurrence | text+cooccurrence | a .npy file [items, width]
    embedding_width: int = at_least(64, 1)
    levels: int = at_least(3, 1)
    codes: int = at_least(64, 2)  # codes per level
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class PromptConfig(Checked, section="prompt."):
    """What stands around the items in a language model's prompt. Without a tokenizer there is no text."""

    style: str = choice("list", "chat")  # chat: in the tokenizer's chat template; then SFT has a row a target
    instruction: str = "Items that one user chose, the latest last:"
    history: str = choice("items", "titles")  # titles: semantic ids are asked for behind a history of titles
    max_tokens: int = at_least(0, 0)  # of a prompt; the oldest items beyond it are dropped whole; 0: no limit
    widths: tuple[int, ...] = ()  # a batch is padded to the least of these that holds its prompts, or to the longest

    def __post_init__(self) -> None:
        super().__post_init__()
        if min((1, *self.widths)) < 1 or list(self.widths) != sorted(set(self.widths)):
            raise ConfigError(f"prompt.widths={self.widths!r} must be numbers of tokens in ascending order")


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

    family: str = choice("decoder")  # which of models.FAMILIES
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
class OptimConfig(Checked, section="optim."):
    """AdamW behind a global-norm clip and a warmed-up schedule."""

    learning_rate: float = at_least(1e-3, 0.0)
    schedule: str = choice("cosine", "linear", "constant")
    warmup: float = at_least(0.03, 0.0)  # below 1: a fraction of all steps; otherwise steps
    weight_decay: float = at_least(0.01, 0.0)
    b1: float = 0.9
    b2: float = 0.999
    max_grad_norm: float = at_least(1.0, 0.0)  # 0: no clipping


@dataclasses.dataclass(frozen=True)
class FaultConfig(Checked, section="faults."):
    """What a stage does about losses that are not finite or explode, and what it warns of. See docs/reliability.md."""

    action: str = choice("stop", "rollback")  # rollback: take steps back and go on without their batches
    rollback_steps: int = at_least(1, 1)  # how many to take back, the faulty one included
    max_rollbacks: int = at_least(3, 1)  # in a stage; a fault beyond stops it
    max_loss: float = at_least(1e3, 0.0)  # a loss of greater size has exploded; 0: any finite loss will do
    spike: float = at_least(10.0, 0.0)  # warn of a loss so many deviations above the recent median; 0: never
    dead: float = at_least(0.95, 0.0)  # warn where so large a share of recent groups taught nothing; 0: never
    window: int = at_least(50, 4)  # steps that count as recent


@dataclasses.dataclass(frozen=True)
class StageConfig(Checked):
    """What SFT and RL share: durations, selection, optimiser."""

    batch_size: int = at_least(64, 1)
    epochs: float = at_least(1.0, 0.0)
    steps: int = at_least(0, 0)  # 0: from epochs
    evals: int = at_least(8, 0)  # validations over the whole stage, evenly spaced, the last at the end
    saves: int = at_least(8, 0)  # resumable checkpoints over the whole stage, likewise
    patience: int = at_least(3, 0)  # validations without a better one before stopping; 0: never stop early
    faults: FaultConfig = FaultConfig()
    optim: OptimConfig = OptimConfig()


@dataclasses.dataclass(frozen=True)
class SftConfig(StageConfig, section="sft."):
    """Supervised fine-tuning: every next item of a user's sequence in one causal pass."""

    loss: str = choice("catalogue", "lm")  # catalogue: over the trie's legal children; lm: over the vocabulary
    # A row holds several users' sequences; sft.batch_size counts rows. 0: the shortest row of which < 5% is padding.
    row_tokens: int = at_least(0, 0)
    # Alignment tasks beside it, each with batch_size more rows a step: the weights of their mean losses; 0: left out.
    title_to_id: float = at_least(0.0, 0.0)
    id_to_title: float = at_least(0.0, 0.0)

    @property
    def tasks(self) -> dict[str, float]:
        """The weights of the alignment tasks that are asked for."""
        weights = {"title_to_id": self.title_to_id, "id_to_title": self.id_to_title}
        return {task: weight for task, weight in weights.items() if weight > 0}


@dataclasses.dataclass(frozen=True)
class RlConfig(StageConfig, section="rl."):
    """Reinforcement learning of the Top-K list. See docs/theory.md for the options' meaning."""

    rows: str = choice("same", "latest")  # SFT's own rows, or the latest part of training, kept out of SFT
    holdout: float = at_least(0.2, 0.0)  # rows=latest: the share of training rows kept for RL
    group_size: int = at_least(16, 2)
    target_k: int = at_least(3, 1)  # the K of the Recall@K that training aims at
    negatives: str = choice("beam", "sample", "random")
    inject_target: str = choice("never", "if_missing", "always")
    weighting: str = choice("tawin", "none", "window", "opauc")
    anchor: int | None = at_least(None, 0)  # rank among the negatives; None: target_k - 1
    temperature: float = at_least(1.0, 0.0)
    mass: float = at_least(1.0, 0.0)
    rank_scale: str = choice("rank", "fraction", "log")
    kind: str = choice("grpo", "dapo", "gspo", "dr_grpo")
    std: str = choice("sample", "population", "none")
    clip_low: float = at_least(0.2, 0.0)
    clip_high: float = at_least(0.2, 0.0)
    kl_coef: float = at_least(1e-3, 0.0)
    dead_groups: str = choice("keep", "compact")  # compact: groups without hit or miss stay out of the update
    ref_sync_steps: int = at_least(0, 0)  # every so many steps the reference moves towards the policy; 0: frozen
    ref_sync_mix: float = at_least(0.6, 0.0)  # the policy's share in the moved reference
    optim: OptimConfig = OptimConfig(learning_rate=1e-4, max_grad_norm=0.3)

    @property
    def anchor_rank(self) -> int:
        """The rank among the negatives at which TAWin's weights peak."""
        return self.target_k - 1 if self.anchor is None else self.anchor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_k >= self.group_size:
            raise ConfigError(
                f"rl.target_k={self.target_k} needs a negative of rank {self.target_k - 1} in the group, "
                f"but rl.group_size={self.group_size}; enlarge the group or lower target_k"
            )
        for name in ("temperature", "mass"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"rl.{name}={getattr(self, name)!r} must be above 0")
        if self.dead_groups == "compact" and (self.kl_coef > 0 or self.inject_target != "never"):
            raise ConfigError(
                "rl.dead_groups='compact' needs rl.kl_coef=0 and rl.inject_target='never': a KL term has a gradient in "
                "every group, and a group with its target put in is never dead"
            )
        if self.kind == "dr_grpo" and self.std != "none":
            raise ConfigError(f"rl.kind='dr_grpo' has no standard deviation: set rl.std='none' (it is {self.std!r})")
        if self.rows == "latest" and not 0 < self.holdout < 1:
            raise ConfigError(f"rl.holdout={self.holdout} must lie between 0 and 1 when rl.rows='latest'")


@dataclasses.dataclass(frozen=True)
class EvalConfig(Checked, section="eval."):
    """How rankings are made and measured."""

    num_beams: int = at_least(20, 1)
    batch_size: int = at_least(64, 1)
    recall_at: tuple[int, ...] = (1, 3, 5, 10)
    ndcg_at: tuple[int, ...] = (3, 5, 10)
    valid_users: int = at_least(2048, 1)  # validation rows in training, a fixed draw; test always takes every row
    select: str = ""  # keeps the best checkpoint; "": recall@K in RL (K = rl.target_k), ndcg at the largest K in SFT
    exact: bool = False  # also score every item: exact ranks, AUC, OPAUC, WPAUC, and what beams miss

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = max(self.recall_at + self.ndcg_at)
        if self.num_beams < largest:
            raise ConfigError(f"eval.num_beams={self.num_beams} cannot give metrics at {largest}; widen the beam")
        if self.select and self.select not in self.metric_names:
            raise ConfigError(
                f"eval.select={self.select!r} is not measured; choose one of {', '.join(self.metric_names)}"
            )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """All that is measured, as in 'recall@10'."""
        return tuple(f"recall@{k}" for k in self.recall_at) + tuple(f"ndcg@{k}" for k in self.ndcg_at)


@dataclasses.dataclass(frozen=True)
class RecommendConfig(Checked, section="recommend."):
    """mode=recommend: histories in, ranked items out."""

    input: str = ""  # JSON lines of {"user": ..., "history": [item ids]}, or a RecBole .inter file
    output: str = ""  # JSON lines; "" is <workdir>/recommendations.jsonl
    top_k: int = at_least(10, 1)


@dataclasses.dataclass(frozen=True)
class ExportConfig(Checked, section="export."):
    """mode=export: the best model of the last trained stage as a Hugging Face folder."""

    path: str = ""  # "" is <workdir>/export
    dtype: str = choice("bfloat16", "float32")  # of the weights


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked, section="mesh."):
    """How many parts the devices cut a run into; the three multiply to their number. See wpauc_jax/sharding.py."""

    data: int = at_least(0, 0)  # users; 0: what the other two leave
    fsdp: int = at_least(1, 1)  # users, and parameters along the model's width
    tensor: int = at_least(1, 1)  # heads, FFN and vocabulary


@dataclasses.dataclass(frozen=True)
class CompileCheckConfig(Checked, section="compile_check."):
    """mode=compile_check: a stand-in for the catalogue, of semantic ids by `catalog.levels` and `catalog.codes`."""

    num_items: int = at_least(100_000, 1)


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """A whole run."""

    mode: str = choice("all", "prepare", "doctor", "sft", "rl", "evaluate", "recommend", "export", "compile_check")
    seed: int = 0
    scoring: str = choice("constrained", "vocab")  # one rule for rollout, update, reference and evaluation
    sft_from: str = ""  # start RL from the SFT of another work directory; "": from this one's
    data: DataConfig = DataConfig()
    catalog: CatalogConfig = CatalogConfig()
    prompt: PromptConfig = PromptConfig()
    model: ModelConfig = ModelConfig()
    sft: SftConfig = SftConfig()
    rl: RlConfig = RlConfig()
    eval: EvalConfig = EvalConfig()
    recommend: RecommendConfig = RecommendConfig()
    export: ExportConfig = ExportConfig()
    mesh: MeshConfig = MeshConfig()
    topology: str = ""  # mode=compile_check: the TPU to compile for, as in v5e:4x4
    compile_check: CompileCheckConfig = CompileCheckConfig()
