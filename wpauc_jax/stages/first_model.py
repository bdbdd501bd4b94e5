"""The model that a run starts from: fresh or pretrained, with rows for the catalog's tokens, perhaps an adapter."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from wpauc_jax import models
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import Config, ConfigError, ModelConfig
from wpauc_jax.models import Frozen, Params, Policy
from wpauc_jax.runtime.sharding import check_sizes, place_state


def first_model(
    config: Config, catalog: Catalog, titles: Sequence[str], tokenizer: Tokenizer | None
) -> tuple[Policy, Params, Frozen]:
    """(policy, trained, frozen) before any training.

    Raises ConfigError for a vocabulary that cannot hold the catalog and for a size that the mesh does not divide, and
    PretrainedError for weights that cannot be read.
    """
    settings, seed = config.model, config.model.seed + config.seed
    new_tokens = catalog.vocab_size - catalog.first_code
    if settings.pretrained:
        policy, params = models.load_pretrained(settings.pretrained, dtype=settings.param_dtype, settings=settings)
        if tokenizer is not None and tokenizer.size > policy.config.vocab_size:
            raise ConfigError(
                f"the tokenizer {tokenizer.path} has {tokenizer.size} tokens, model.pretrained={settings.pretrained!r} "
                f"has rows for {policy.config.vocab_size}: they do not belong together"
            )
        if new_tokens:
            described = _descriptions(settings, catalog, titles, tokenizer)
            policy, params = models.grow_vocabulary(policy, params, catalog.first_code, described)
        if settings.lora.rank:
            policy, params = models.add_adapter(policy, params, settings.lora, seed)
    else:
        policy, params = models.init(
            fitted(settings, catalog.vocab_size, longest_row(config, catalog.tokens.shape[1])), seed
        )
    check_mesh(config, policy.config)
    params = place_state(params)
    trained, frozen = models.split_params(policy, params, first_row=catalog.first_code, num_rows=new_tokens)
    return policy, trained, frozen


def check_mesh(config: Config, model: ModelConfig) -> None:
    """Raises ConfigError for a size of the model, or of a stage's batches, that the mesh does not divide."""
    batch_sizes = {"eval.batch_size": config.eval.batch_size}
    for name, stage in (("sft", config.sft), ("rl", config.rl)):
        setting = f"{name}.batch_size" + (f" / {name}.microbatches" if stage.microbatches > 1 else "")
        batch_sizes[setting] = stage.batch_size // stage.microbatches
    check_sizes(model, batch_sizes)


def fitted(settings: ModelConfig, tokens: int, places: int) -> ModelConfig:
    """The model with a vocabulary for the catalog's tokens and, if its family learns them, places for a row's tokens.

    Raises ConfigError where one of them is set too small.
    """
    needed: dict[str, tuple[int, str]] = {"vocab_size": (tokens, f"the catalog has {tokens} tokens")}
    if "num_positions" in models.FAMILIES[settings.family].uses:
        needed["num_positions"] = (places, f"a history and its answer have up to {places} tokens")
    for name, (count, why) in needed.items():
        value = getattr(settings, name)
        if 0 < value < count:
            raise ConfigError(f"model.{name}={value} is too small: {why}; leave it at 0 to take what is needed")
    fits: dict[str, Any] = {name: getattr(settings, name) or count for name, (count, _) in needed.items()}
    return dataclasses.replace(settings, **fits)


def longest_row(config: Config, item_tokens: int) -> int:
    """Tokens of the beginning, the longest history and its answer, where an item has at most `item_tokens`."""
    return 1 + (config.data.max_history + 1) * item_tokens


def _descriptions(
    settings: ModelConfig, catalog: Catalog, titles: Sequence[str], tokenizer: Tokenizer | None
) -> list[list[int]]:
    """For each new token the tokens that its rows start as the mean of, by `model.new_rows`; none: of all rows.

    text: the tokens of the titles of the items that have the new token.
    """
    described: list[list[int]] = [[] for _ in range(catalog.vocab_size - catalog.first_code)]
    return described if tokenizer is None else NEW_ROWS[settings.new_rows](described, catalog, titles, tokenizer)


def _undescribed(
    described: list[list[int]], catalog: Catalog, titles: Sequence[str], tokenizer: Tokenizer
) -> list[list[int]]:
    return described


def _by_titles(
    described: list[list[int]], catalog: Catalog, titles: Sequence[str], tokenizer: Tokenizer
) -> list[list[int]]:
    for sequence, title in zip(catalog.sequences(), tokenizer.encode(titles), strict=True):
        for token in sequence:
            if token >= catalog.first_code:
                described[token - catalog.first_code] += title
    return described


# By `model.new_rows`: what describes a new token.
NEW_ROWS = {"text": _by_titles, "mean": _undescribed}
