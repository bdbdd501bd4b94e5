"""Settings of the stages: SFT, RL, evaluation, and what is done with a trained model."""

import dataclasses

from wpauc_jax.config.fields import Checked, ConfigError, at_least, choice


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
class CompileCheckConfig(Checked, section="compile_check."):
    """mode=compile_check: a stand-in for the catalogue, of semantic ids by `catalog.levels` and `catalog.codes`."""

    num_items: int = at_least(100_000, 1)
