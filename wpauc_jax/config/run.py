"""All settings of a run in one value.

`configs/*.py` turn it into a ConfigDict for the command line, and `main` turns what the command line made of it back
(see `wpauc_jax.config`). Below `main` only these dataclasses are seen.
"""

import dataclasses

from wpauc_jax.config.data import CatalogConfig, DataConfig, PromptConfig
from wpauc_jax.config.fields import Checked, choice
from wpauc_jax.config.model import MeshConfig, ModelConfig
from wpauc_jax.config.stages import CompileCheckConfig, EvalConfig, ExportConfig, RecommendConfig, RlConfig, SftConfig


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
