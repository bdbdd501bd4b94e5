"""Settings of the stages: SFT, RL, evaluation, and what is done with a trained model."""

import dataclasses
import os

from wpauc_jax.config.fields import Checked, ConfigError, a_path, above, ascending, at_least, choice, share, shown
from wpauc_jax.config.rl_checks import check_rl
from wpauc_jax.config.sft_checks import check_sft
from wpauc_jax.config.useless import Useless, refuse_useless

_MOST_AT_ONCE = 2**24  # lists times items in a list: what one step or one batch holds


@dataclasses.dataclass(frozen=True)
class OptimConfig(Checked, section="optim."):
    """AdamW behind a global-norm clip and a warmed-up schedule."""

    learning_rate: float = above(1e-3, 0.0, 1e3)  # the largest one, at the end of the warm-up
    schedule: str = choice("cosine", "linear", "constant")  # how the learning rate falls after the warm-up
    warmup: float = at_least(0.03, 0.0, 1e9)  # below 1: a share of all steps; otherwise a number of steps
    weight_decay: float = at_least(0.01, 0.0, 1e3)  # of matrices; norms and biases have none
    b1: float = share(0.9, whole=False)  # how much of the gradients' mean is kept in each step
    b2: float = share(0.999, whole=False)  # how much of the squared gradients' mean is kept in each step
    # How the mean of the gradients is kept: in the type of the parameters, or in bfloat16, half as large as float32.
    first_moment: str = choice("parameters", "bfloat16")
    max_grad_norm: float = at_least(1.0, 0.0, 1e9)  # a longer gradient is shortened to it; 0: no clipping


@dataclasses.dataclass(frozen=True)
class FaultConfig(Checked, section="faults."):
    """What a stage does about losses that are not finite or explode, and what it warns of. See docs/reliability.md."""

    action: str = choice("stop", "rollback")  # rollback: take steps back and go on without their batches
    rollback_steps: int = at_least(1, 1)  # how many to take back, the faulty one included
    max_rollbacks: int = at_least(3, 1)  # how many a stage may do; a fault beyond them stops it
    max_loss: float = at_least(1e3, 0.0, 1e30)  # a loss of greater size has exploded; 0: any finite loss will do
    spike: float = at_least(10.0, 0.0, 1e9)  # warn of a loss so many deviations above the recent median; 0: never
    dead: float = share(0.95)  # warn where so large a share of recent groups taught nothing; 0: never
    window: int = at_least(50, 4, 1_000_000)  # how many steps count as recent


@dataclasses.dataclass(frozen=True)
class StageConfig(Checked):
    """What SFT and RL share: durations, selection, optimiser."""

    batch_size: int = at_least(64, 1, 65_536)  # rows of a step
    # In how many parts, one after another, a step takes its rows. The update is that of the whole batch. More parts
    # need less memory. Each part draws candidates and dropout of its own.
    microbatches: int = at_least(1, 1, 65_536)
    # Passes over the rows. 0: no step, the first parameters are the best; mode=all then leaves RL out.
    epochs: float = at_least(1.0, 0.0, 1e6)
    steps: int = at_least(0, 0)  # how many steps; 0: as many as the epochs take
    evals: int = at_least(8, 0, 100_000)  # validations over the whole stage, evenly spaced, the last at the end
    saves: int = at_least(8, 0, 100_000)  # resumable checkpoints over the whole stage, likewise
    patience: int = at_least(3, 0)  # stop after so many validations without a better one; 0: never stop early
    # The decay of a moving average of the parameters. Validations and all answers then use the average. 0: none.
    ema: float = share(0.0, whole=False)
    # The share of the numbers that are dropped in training, behind the embedding, each attention and each MLP. RL drops
    # them in the pass over the prompt, which rollout and update share, and not behind the tokens of candidates.
    dropout: float = share(0.0, whole=False)
    faults: FaultConfig = FaultConfig()
    optim: OptimConfig = OptimConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.microbatches:
            raise ConfigError(
                f"{self._section}microbatches={self.microbatches} does not divide {self._section}batch_size="
                f"{self.batch_size}; the parts must be of one size"
            )


@dataclasses.dataclass(frozen=True)
class SftConfig(StageConfig, section="sft."):
    """Supervised fine-tuning: every next item of a user's sequence in one causal pass."""

    start_from: str = a_path()  # begin at the best SFT of this other work directory; empty: at the first parameters
    # What the next token is compared with. catalog: the tokens that go on to an item; lm: the whole vocabulary.
    loss: str = choice("catalog", "lm", renamed={"catalogue": "catalog"})
    # loss=catalog, and one token an item: how the scores of items make a loss. cross_entropy: a softmax over the
    # catalog. gbce and bpr: against `negatives` items drawn evenly (gSASRec, BPR). sl_at_k: cross-entropy times soft
    # Recall@target_k. opauc: against the top `beta` of the negatives. llpauc: the batch's top `alpha` of the targets
    # against the top `beta` of `negatives` drawn items each. pairwise: against TAWin's window of negatives. self_hard:
    # cross-entropy in which what middle layers hold likely counts more (ILRec); also with several tokens an item.
    objective: str = choice("cross_entropy", "gbce", "bpr", "sl_at_k", "opauc", "llpauc", "pairwise", "self_hard")
    negatives: int = at_least(256, 1, 100_000)  # gbce, bpr, llpauc: how many items are drawn for each target
    calibration: float = share(0.75)  # gbce: 0 is binary cross-entropy, 1 makes up for the items that are not drawn
    target_k: int = at_least(3, 1, 10_000)  # sl_at_k, pairwise: the K of the Recall@K that is aimed at
    softness: float = above(1.0, 0.0, 1e9)  # sl_at_k: the width of the comparison, in units of log-probability
    temperature: float = above(1.0, 0.0, 1e9)  # pairwise: the width of the window, in ranks
    alpha: float = above(0.5, 0.0, 1.0)  # llpauc: the highest true positive rate
    beta: float = above(0.1, 0.0, 1.0)  # opauc, llpauc: the highest false positive rate
    hard_weight: float = at_least(0.1, 0.0, 1e6)  # self_hard: what the hard negatives' logits get together; ILRec's a
    # self_hard: a negative is hard if its logit in the middle layers is at least so many times the target's in the
    # last; ILRec's phi.
    hard_ratio: float = at_least(1.0, 0.0, 1e3)
    hard_layers: int = at_least(1, 1, 1000)  # self_hard: how many layers before the last are read
    distillation: float = at_least(0.1, 0.0, 1e6)  # self_hard: how much middle layers are drawn to the last one
    # Where the history is left out of the ranking: leave the items of the prompt out of the loss's softmax, too. It
    # has no effect where every item is ranked.
    exclude_history: bool = False
    # loss=catalog: the share of each step's probability that is wanted for the tokens which go on to any item, in
    # equal parts.
    label_smoothing: float = share(0.0, whole=False)
    # loss=catalog: the weight of the losses of items' first tokens, of which the worst weighs most (APAO). A beam
    # search keeps an item only while its first tokens are among the best.
    prefix_loss: float = at_least(0.0, 0.0, 1e6)
    prefix_eta: float = at_least(1.0, 0.0, 1e3)  # prefix_loss: how much more the worst first tokens weigh
    # A row holds several users' sequences, and sft.batch_size counts rows. 0: the shortest row of which less than 5%
    # is padding.
    row_tokens: int = at_least(0, 0, 1_000_000)
    # The weight of the task "from a title to its semantic id", which adds batch_size rows to a step. 0: left out.
    title_to_id: float = at_least(0.0, 0.0, 1e6)
    # The weight of the task "from a semantic id to its title", which adds batch_size rows to a step. 0: left out.
    id_to_title: float = at_least(0.0, 0.0, 1e6)
    # The weight of the task "from a history of semantic ids to the next item's title", likewise. 0: left out.
    ids_to_title: float = at_least(0.0, 0.0, 1e6)
    # The weight of the task "from a history of titles to the next item's semantic id", likewise. 0: left out.
    titles_to_id: float = at_least(0.0, 0.0, 1e6)
    # The weight of the task "from a history of titles to the next item's title", likewise. 0: left out.
    titles_to_title: float = at_least(0.0, 0.0, 1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sft(self)

    @property
    def tasks(self) -> dict[str, float]:
        """The weights of the alignment tasks that are asked for."""
        names = ("title_to_id", "id_to_title", "ids_to_title", "titles_to_id", "titles_to_title")
        weights = {name: getattr(self, name) for name in names}
        return {task: weight for task, weight in weights.items() if weight > 0}


@dataclasses.dataclass(frozen=True)
class RlConfig(StageConfig, section="rl."):
    """Reinforcement learning of the Top-K list. See docs/theory.md for the options' meaning."""

    # Where the gradient comes from. sampled: from a group of candidates. exact: from the target's own probability, in
    # closed form; there is no group, except for the threshold of kind=soft_topk.
    estimator: str = choice("sampled", "exact")
    # same: SFT's own rows. latest: the latest part of the training rows, which SFT then does not see.
    rows: str = choice("same", "latest")
    holdout: float = share(0.2)  # rows=latest: the share of the training rows that is kept for RL
    group_size: int = at_least(16, 2, 10_000)  # candidates for each user
    target_k: int = at_least(3, 1, 10_000)  # the K of the Recall@K that training aims at
    # The other candidates of a group: the likeliest items, drawn from the model, or drawn evenly from all items.
    negatives: str = choice("beam", "sample", "random")
    # The share of a group that is drawn from the target's siblings: items with the same first sibling_depth tokens.
    sibling_mix: float = share(0.0)
    sibling_depth: int = at_least(1, 1, 1000)  # with sibling_mix: how many first tokens siblings share with the target
    # How many of the user's next items of the training split are targets of a row, each with reward 1. The window then
    # begins at rank target_k minus their number, and holds as many times rl.mass.
    targets: int = at_least(1, 1, 100)
    # What a candidate gets. binary: 1 for a target; ranking: also less the higher a miss stands; semantic: the cosine
    # of its embedding (catalog.embedding) and the target's; collaborative: its log-probability under the model of
    # reward_from; combined: a sum by reward_weights.
    reward: str = choice("binary", "ranking", "semantic", "collaborative", "combined")
    # reward=combined: the weights of binary, ranking, semantic and collaborative.
    reward_weights: tuple[float, ...] = at_least((1.0, 0.0, 0.0, 0.0), 0.0, 1e6)
    reward_from: str = a_path()  # reward=collaborative: a work directory whose trained items are one token each
    # What is done with misses that the user may well have liked. keep: nothing; mask: they are left out of the group;
    # reward: they get false_negative_reward.
    false_negatives: str = choice("keep", "mask", "reward")
    # Which misses those are. title: items with the target's title; embedding: items whose embedding is as near to the
    # target's as false_negative_cosine; later: items that the user takes later inside the training split.
    false_negative: str = choice("title", "embedding", "later")
    false_negative_cosine: float = share(0.95)  # false_negative=embedding: the least cosine
    false_negative_reward: float = above(1.0, 0.0, 1.0)  # false_negatives=reward: what they get
    # When the target is put into a group: never, where the group lacks it, or as its own candidate every time. hint:
    # a group that lacks it begins anew behind the target's first tokens, as few as it takes (SINGER).
    inject_target: str = choice("never", "if_missing", "always", "hint")
    # Of negatives by rank, or, with policy, by their probability; see docs/theory.md.
    weighting: str = choice("tawin", "none", "window", "opauc", "policy", "trimmed")
    trim_top: float = share(0.1, whole=False)  # weighting=trimmed: the share of the top negatives that is left out
    # Push a negative's token in proportion to its probability where that is below one half (GBPO).
    bound_negatives: bool = False
    # The weight of advantages among the tokens that a group took at one node of the trie. 0: left out.
    sibling_coef: float = at_least(0.0, 0.0, 1e6)
    negative_scale: float = at_least(1.0, 0.0, 1e6)  # times the negatives' advantages; 0: only the targets are pushed
    nll: float = at_least(0.0, 0.0, 1e6)  # the weight of the targets' negative log-likelihood, which joins the loss
    anchor: int | None = at_least(None, 0)  # the rank among the negatives at the window's centre; None: target_k - 1
    temperature: float = above(1.0, 0.0, 1e9)  # tawin: the width of the window, in units of rank_scale
    mass: float = above(1.0, 0.0, 10_000)  # how many negatives the window holds
    rank_scale: str = choice("rank", "fraction", "log")  # tawin: how the distance of two ranks is measured
    # The loss. estimator=sampled: a policy loss of grpo, dapo, gspo or dr_grpo, or the preference of the target over
    # the group's others (sdpo). estimator=exact: what grpo or dr_grpo are in expectation, the q family (gce), or soft
    # Recall@K with K = target_k (soft_topk).
    kind: str = choice("grpo", "dapo", "gspo", "dr_grpo", "sdpo", "gce", "soft_topk")
    dpo_beta: float = above(1.0, 0.0, 1e6)  # kind=sdpo: how much a log-ratio to the reference counts
    q: float = at_least(0.5, 0.0, 100.0)  # kind=gce: 0 is cross-entropy, 1 the expected reward
    # kind=soft_topk: what the target is compared with. beam: the K-th negative of a search with K + 1 beams; exact:
    # the K-th of all items, each of them scored; window: the mean of TAWin's window in a search of group_size beams.
    threshold: str = choice("beam", "exact", "window")
    # kind=soft_topk: likelihood is cross-entropy times the soft recall; surrogate is the soft recall itself.
    soft_form: str = choice("likelihood", "surrogate")
    softness: float = above(1.0, 0.0, 1e9)  # kind=soft_topk: the width of the comparison, in units of log-probability
    std: str = choice("sample", "population", "none")  # what a group's advantages are divided by
    clip_low: float = share(0.2)  # how far below 1 the ratio of probabilities may fall
    clip_high: float = at_least(0.2, 0.0, 1e6)  # how far above 1 the ratio of probabilities may rise
    kl_coef: float = at_least(1e-3, 0.0, 1e6)  # the weight of the divergence from the reference; 0: no reference
    dead_groups: str = choice("keep", "compact")  # compact: groups without hit or miss stay out of the update
    ref_sync_steps: int = at_least(0, 0)  # every so many steps the reference moves towards the policy; 0: never
    ref_sync_mix: float = share(0.6)  # the policy's share in the moved reference
    optim: OptimConfig = OptimConfig(learning_rate=1e-4, max_grad_norm=0.3)

    @property
    def keeps_reference(self) -> bool:
        """Whether a step compares the policy with a reference: the best SFT, or what `ref_sync_steps` made of it."""
        return self.kl_coef > 0 or self.kind == "sdpo"

    @property
    def term_weights(self) -> tuple[float, ...]:
        """The weights of the terms of the loss: the objective, and the targets' likelihood where it joins."""
        return (1.0, *[self.nll] * bool(self.nll), *[1.0] * self.hints)

    @property
    def hints(self) -> bool:
        """Whether groups without their target are begun anew behind its first tokens."""
        return self.inject_target == "hint"

    @property
    def anchor_rank(self) -> int:
        """The rank among the negatives at which TAWin's weights peak."""
        return self.target_k - 1 if self.anchor is None else self.anchor

    @property
    def weights_of_rewards(self) -> dict[str, float]:
        """The weight of each reward that a run has."""
        names = ("binary", "ranking", "semantic", "collaborative")
        given = zip(names, self.reward_weights, strict=False) if self.reward == "combined" else [(self.reward, 1.0)]
        return {name: weight for name, weight in given if weight}

    @property
    def num_siblings(self) -> int:
        """How many of a group's candidates are drawn from the target's siblings."""
        return round(self.sibling_mix * (self.group_size - 1))

    @property
    def needs_embeddings(self) -> bool:
        """Whether a reward or a false negative looks at the items' embeddings."""
        by_embedding = self.false_negatives != "keep" and self.false_negative == "embedding"
        return by_embedding or "semantic" in self.weights_of_rewards

    @property
    def looks_at_later(self) -> bool:
        """Whether a step looks at what users take after a row's target."""
        return self.targets > 1 or (self.false_negatives != "keep" and self.false_negative == "later")

    @property
    def list_length(self) -> int:
        """How many items the list of a step holds for each user: the hit rate is the share of lists with the target."""
        if self.searches_groups:
            return self.group_size
        return self.target_k + (self.kind == "soft_topk" and self.threshold == "beam")

    @property
    def searches_groups(self) -> bool:
        """Whether a step searches `group_size` candidates for each user."""
        return self.estimator == "sampled" or (self.kind == "soft_topk" and self.threshold == "window")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rl(self)
        if self.searches_groups:
            _check_product("rl.batch_size", self.batch_size, "rl.group_size", self.group_size)
        else:
            _check_product("rl.batch_size", self.batch_size, "rl.target_k", self.target_k)


_USELESS = (  # settings of EvalConfig that have no effect
    Useless(lambda config: not config.guide, "eval.guide is empty", "", {"guide_share": 0.5}),
    Useless(lambda config: config.search == "beams", "eval.search='beams'", "", {"popularity": 0.0}),
    Useless(
        lambda config: config.search == "grounding",
        "eval.search='grounding'",
        "which looks at no probability of items",
        {"exact": False, "sets": False, "guide": ""},
    ),
)


@dataclasses.dataclass(frozen=True)
class EvalConfig(Checked, section="eval."):
    """How rankings are made and measured."""

    num_beams: int = at_least(20, 1, 10_000)  # how many items are searched for each user
    batch_size: int = at_least(64, 1, 65_536)  # users at a time
    recall_at: tuple[int, ...] = ascending((1, 3, 5, 10), 1, 10_000)  # each K of Recall@K
    ndcg_at: tuple[int, ...] = ascending((3, 5, 10), 1, 10_000)  # each K of NDCG@K
    valid_users: int = at_least(2048, 1)  # rows of a validation, drawn once; the test always takes every row
    # The metric that keeps the best checkpoint. Empty: recall@K with K = rl.target_k in RL, ndcg at the largest K in
    # SFT.
    select: str = ""
    exact: bool = False  # score every item as well: exact ranks, AUC, OPAUC, WPAUC, and what the search misses
    # Also measure each user's test items as one set, all ranked after the prompt before the first of them.
    sets: bool = False
    # How a list is made. beams: the best items by their probability. grounding: the model writes a title freely, and
    # the items whose titles' states are nearest to its state come first (BIGRec); for catalog.ids=title.
    search: str = choice("beams", "grounding")
    popularity: float = at_least(0.0, 0.0, 100.0)  # grounding: how much nearer popular items are; BIGRec's gamma
    # A work directory whose trained items are one token each. Its model has a say in every step of a search (D3).
    guide: str = a_path()
    guide_share: float = share(0.5)  # guide: its share of every score; D3's 1 - alpha

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = max(self.recall_at + self.ndcg_at)
        if self.num_beams < largest:
            asks = "recall_at" if largest in self.recall_at else "ndcg_at"
            raise ConfigError(
                f"eval.num_beams={self.num_beams} cannot give metrics at {largest}, which eval.{asks} asks for; widen "
                "the beam"
            )
        if self.select and self.select not in self.metric_names:
            raise ConfigError(
                f"eval.select={shown(self.select)} is not measured; choose one of {', '.join(self.metric_names)}"
            )
        refuse_useless(self, "eval", _USELESS)
        _check_product("eval.batch_size", self.batch_size, "eval.num_beams", self.num_beams)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """All that is measured, as in 'recall@10'."""
        return tuple(f"recall@{k}" for k in self.recall_at) + tuple(f"ndcg@{k}" for k in self.ndcg_at)


@dataclasses.dataclass(frozen=True)
class RecommendConfig(Checked, section="recommend."):
    """mode=recommend: histories in, ranked items out."""

    input: str = a_path()  # the histories: JSON lines of {"user": ..., "history": [item ids]}, or a RecBole .inter file
    output: str = a_path()  # the answers, as JSON lines; empty: WORKDIR/recommendations.jsonl
    top_k: int = at_least(10, 1, 10_000)  # items for each user
    unknown: str = choice("error", "skip")  # an item of a history that the catalog lacks is an error, or is left out

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input and self.output and os.path.abspath(self.input) == os.path.abspath(self.output):
            raise ConfigError(
                f"recommend.output={shown(self.output)} is recommend.input: the histories would be overwritten"
            )


@dataclasses.dataclass(frozen=True)
class ExportConfig(Checked, section="export."):
    """mode=export: the best model of the last trained stage as a Hugging Face folder."""

    path: str = a_path()  # the folder to be made; empty: WORKDIR/export
    dtype: str = choice("bfloat16", "float32")  # the type of the weights


@dataclasses.dataclass(frozen=True)
class CompileCheckConfig(Checked, section="compile_check."):
    """mode=compile_check: a stand-in for the catalog, of semantic ids by `catalog.levels` and `catalog.codes`."""

    num_items: int = at_least(100_000, 1, 10_000_000)  # how many items the stand-in has


def _check_product(one: str, first: int, other: str, second: int) -> None:
    if first * second > _MOST_AT_ONCE:
        raise ConfigError(
            f"{one}={first} x {other}={second} is {first * second:,} lists' items at once, more than "
            f"{_MOST_AT_ONCE:,}; lower one of them"
        )
