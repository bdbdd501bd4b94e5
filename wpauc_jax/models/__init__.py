"""Language models as pure functions over parameters."""

from wpauc_jax.models.decoder import PromptCache, Prompts, SuffixCache
from wpauc_jax.models.hf import PretrainedError
from wpauc_jax.models.policy import Params, Policy, init, make_policy
from wpauc_jax.models.pretrained import load_pretrained

__all__ = [
    "Params",
    "Policy",
    "PretrainedError",
    "PromptCache",
    "Prompts",
    "SuffixCache",
    "init",
    "load_pretrained",
    "make_policy",
]
