"""Language models as pure functions over a tree of parameters.

Model families, pretrained weights in and out, and adapters belong here. Items, losses and the files of a run do not.
"""

from wpauc_jax.models.cache import PromptCache, Prompts, SuffixCache
from wpauc_jax.models.dropout import Dropout
from wpauc_jax.models.export import save_pretrained
from wpauc_jax.models.family import Family
from wpauc_jax.models.hf import PretrainedError
from wpauc_jax.models.lora import add_adapter, merge_adapter
from wpauc_jax.models.partition import ALL_TRAINED, Frozen, split_params
from wpauc_jax.models.policy import FAMILIES, Params, Policy, init, make_policy
from wpauc_jax.models.pretrained import load_pretrained, load_t5
from wpauc_jax.models.vocabulary import grow_vocabulary

__all__ = [
    "ALL_TRAINED",
    "FAMILIES",
    "Dropout",
    "Family",
    "Frozen",
    "Params",
    "Policy",
    "PretrainedError",
    "PromptCache",
    "Prompts",
    "SuffixCache",
    "add_adapter",
    "grow_vocabulary",
    "init",
    "load_pretrained",
    "load_t5",
    "make_policy",
    "merge_adapter",
    "save_pretrained",
    "split_params",
]
