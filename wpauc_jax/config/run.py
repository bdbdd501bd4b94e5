"""All settings of a run in one value.

`configs/*.py` turn it into a ConfigDict for the command line, and `main` turns what the command line made of it back
(see `wpauc_jax.config`). Below `main` only these dataclasses are seen.
"""

import dataclasses

from wpauc_jax.config.data import CatalogConfig, DataConfig, PromptConfig
from wpauc_jax.config.fields import Checked, ConfigError, a_path, a_seed, choice
from wpauc_jax.config.model import ONE_TOKEN_FAMILIES, MeshConfig, ModelConfig
from wpauc_jax.config.stages import CompileCheckConfig, EvalConfig, ExportConfig, RecommendConfig, RlConfig, SftConfig

MODES = {  # what `--config.mode` may be, and what each does
    "all": "prepare the data, SFT, RL, evaluation; what is done already is not done again",
    "prepare": "prepare the data and the catalog, and stop",
    "doctor": "examine the data, the catalog and what was trained; exit code 1 where there is a problem",
    "sft": "supervised fine-tuning",
    "rl": "reinforcement learning, from the best SFT",
    "evaluate": "rank the test users by every trained stage: a table, results.json, plots",
    "recommend": "answer recommend.input with ranked items",
    "export": "write the best model as a Hugging Face folder",
    "compile_check": "compile the run for the TPU of --config.topology, which need not be here: does it fit?",
}


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """A whole run."""

    mode: str = choice(*MODES)  # which part of the job to do; `python -m wpauc_jax.main --help` tells them apart
    seed: int = a_seed()  # of the order of rows and of every draw in training
    # Which tokens a probability is divided among, in search, update, reference and evaluation alike. constrained:
    # those that go on to an item; vocab: the whole vocabulary.
    scoring: str = choice("constrained", "vocab")
    # Whether what a user has can be recommended again. on: no item of the user's whole history is a candidate, in
    # rollouts, in evaluation and in recommendations. auto: on where fewer than 1% of the training targets stand in
    # their own history. A line says what was chosen.
    exclude_history: str = choice("auto", "on", "off")
    sft_from: str = a_path()  # start RL from the SFT of this other work directory; empty: from this one's
    # Go on where a setting of the model or of the ranking is another one than in training. What is written says so.
    allow_changes: bool = False
    # Where compiled programs are kept, so that a later run with the same shapes need not compile them. auto: in the
    # user's cache folder; off: nowhere. JAX_COMPILATION_CACHE_DIR comes first.
    compile_cache: str = a_path("auto")
    # Who else gets the metrics of each step. tensorboard: events in WORKDIR/tensorboard; wandb: Weights & Biases;
    # trackio: Trackio. Each needs the extra of its name.
    tracking: str = choice("none", "tensorboard", "wandb", "trackio")
    topology: str = ""  # mode=compile_check: the TPU to compile for, as in v5e:4x4
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
    compile_check: CompileCheckConfig = CompileCheckConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "recommend" and not self.recommend.input:
            raise ConfigError("recommend.input is empty; give a file of histories (JSON lines or .inter)")
        if self.catalog.ids == "file" and not self.catalog.path:
            raise ConfigError("catalog.path is empty; catalog.ids='file' needs a .sid file")
        if self.model.family in ONE_TOKEN_FAMILIES and (self.catalog.ids != "atomic" or self.catalog.tokenizer):
            raise ConfigError(
                f"model.family={self.model.family!r} scores items of one token: set catalog.ids='atomic' and no "
                "catalog.tokenizer"
            )
        if self.model.time_buckets and self.prompt.max_tokens:
            raise ConfigError(
                f"model.time_buckets={self.model.time_buckets} needs prompt.max_tokens=0 (it is "
                f"{self.prompt.max_tokens}): lower data.max_history instead"
            )
        if self.eval.search == "grounding" and self.catalog.ids != "title":
            raise ConfigError(
                f"eval.search='grounding' reads titles: set catalog.ids='title' (it is {self.catalog.ids!r})"
            )
        if self.eval.sets and self.data.split == "leave_one_out":
            raise ConfigError(
                "eval.sets=True means nothing where data.split='leave_one_out', which holds out one test item each; "
                "set data.split='chronological' or eval.sets=False"
            )
        if self.sft_from and self.sft.start_from:
            raise ConfigError(
                f"sft.start_from={self.sft.start_from!r} means nothing beside sft_from={self.sft_from!r}, which leaves "
                "this run's own SFT out; set one of them"
            )
