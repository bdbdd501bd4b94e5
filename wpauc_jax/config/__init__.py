"""Every setting of a run, as frozen dataclasses that check themselves.

Fields, their defaults, their bounds and the command line belong here. What a setting does does not: the folder that
reads the setting decides it.
"""

from wpauc_jax.config.data import CatalogConfig, DataConfig, PromptConfig, SyntheticConfig
from wpauc_jax.config.fields import ConfigError, from_config_dict, to_config_dict
from wpauc_jax.config.model import LoraConfig, MeshConfig, ModelConfig, RopeScalingConfig
from wpauc_jax.config.run import Config
from wpauc_jax.config.stages import (
    CompileCheckConfig,
    EvalConfig,
    ExportConfig,
    FaultConfig,
    OptimConfig,
    RecommendConfig,
    RlConfig,
    SftConfig,
    StageConfig,
)

__all__ = [
    "CatalogConfig",
    "CompileCheckConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "ExportConfig",
    "FaultConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimConfig",
    "PromptConfig",
    "RecommendConfig",
    "RlConfig",
    "RopeScalingConfig",
    "SftConfig",
    "StageConfig",
    "SyntheticConfig",
    "from_config_dict",
    "to_config_dict",
]
