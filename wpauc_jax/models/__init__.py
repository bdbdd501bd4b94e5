"""Language models as pure functions over parameters."""

from wpauc_jax.models.decoder import PromptCache, Prompts, SuffixCache
from wpauc_jax.models.policy import Params, Policy, init

__all__ = ["Params", "Policy", "PromptCache", "Prompts", "SuffixCache", "init"]
