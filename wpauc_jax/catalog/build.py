"""The catalog that the settings ask for."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from wpauc_jax.catalog.items import Catalog, catalog_from_codes
from wpauc_jax.catalog.titles import catalog_from_titles
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import CatalogConfig, ConfigError
from wpauc_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What a catalog is made of."""

    config: CatalogConfig
    dataset: Dataset
    tokenizer: Tokenizer | None
    end: int


# Threads would add partial sums in the order in which they finish, and so round differently from run to run.
@threadpool_limits.wrap(limits=1)
def build_catalog(
    config: CatalogConfig, dataset: Dataset, tokenizer: Tokenizer | None = None, *, end: int = -1
) -> Catalog:
    """Every item of `dataset` as a unique token sequence, by `catalog.ids`.

    With a `tokenizer` items live in its vocabulary, and `end` ends each item. Semantic ids that it knows by their names
    are its tokens; the others are new tokens behind its last one.

    Raises ConfigError or DataError for settings, embeddings or an id file that do not fit the data set.
    """
    return IDS[config.ids](_Wanted(config, dataset, tokenizer, end))


def _atomic(wanted: _Wanted) -> Catalog:
    """A token for each item, in the order of the items."""
    num_items = wanted.dataset.num_items
    return catalog_from_codes(np.arange(num_items)[:, None], [num_items], **_place(wanted))


def _from_titles(wanted: _Wanted) -> Catalog:
    dataset, tokenizer = wanted.dataset, wanted.tokenizer
    if tokenizer is None:
        raise ConfigError("catalog.ids='title' needs a tokenizer: set model.pretrained or catalog.tokenizer")
    if not any(dataset.titles):
        raise ConfigError("catalog.ids='title' needs titles, and this data set has none")
    limit = wanted.config.max_title_tokens
    return catalog_from_titles(dataset.titles, dataset.item_ids, tokenizer, max_tokens=limit, end=wanted.end)


def _from_file(wanted: _Wanted) -> Catalog:
    if not wanted.config.path:
        raise ConfigError("catalog.path is empty; catalog.ids='file' needs a .sid file")
    from wpauc_jax.catalog.sid import are_names, read_sid  # and with it Polars

    codes, names = read_sid(wanted.config.path, wanted.dataset.item_ids)
    sizes = [len(level) for level in names]
    return catalog_from_codes(codes, sizes, names=names if are_names(names) else None, **_place(wanted))


def _from_kmeans(wanted: _Wanted, *, balanced: bool = False) -> Catalog:
    from wpauc_jax.catalog.clustering import residual_kmeans  # and with it scikit-learn

    return _from_embeddings(wanted, functools.partial(residual_kmeans, balanced=balanced))


def _from_rqvae(wanted: _Wanted) -> Catalog:
    from wpauc_jax.catalog.rqvae import rqvae_codes  # and with it scikit-learn

    return _from_embeddings(wanted, rqvae_codes)


def _from_embeddings(wanted: _Wanted, codes_of: Callable[[np.ndarray, int, int, int], np.ndarray]) -> Catalog:
    from wpauc_jax.catalog.embeddings import item_embeddings

    config = wanted.config
    codes = codes_of(item_embeddings(config, wanted.dataset), config.levels, config.codes, config.seed)
    return catalog_from_codes(codes, [config.codes] * config.levels, **_place(wanted))


IDS: dict[str, Callable[[_Wanted], Catalog]] = {  # by catalog.ids
    "kmeans": _from_kmeans,
    "balanced": functools.partial(_from_kmeans, balanced=True),
    "rqvae": _from_rqvae,
    "file": _from_file,
    "title": _from_titles,
    "atomic": _atomic,
}


def _place(wanted: _Wanted) -> dict[str, Any]:
    """Where `catalog_from_codes` puts codes: inside the tokenizer's vocabulary, or in one of their own."""
    tokenizer = wanted.tokenizer
    if tokenizer is None:
        return {}
    return {"first_code": tokenizer.size, "end": wanted.end, "known": tokenizer.vocabulary}


def check_codes(catalog: Catalog, tokenizer: Tokenizer) -> None:
    """Raises ConfigError where a code has the number of another token, or one that its name has not."""
    if catalog.first_code < tokenizer.size and (catalog.codes >= catalog.first_code).any():
        raise ConfigError(
            f"the catalog's new codes begin at number {catalog.first_code}, but the tokenizer {tokenizer.path} has "
            f"tokens up to number {tokenizer.size - 1}: they would share rows of the model; use another --workdir"
        )
    reserved = {number: role for role, number in tokenizer.reserved.items()}
    for name, token in zip(catalog.code_names, catalog.codes.tolist(), strict=True):
        if token in reserved:
            raise ConfigError(
                f"the code {name!r} is the {reserved[token]} of the tokenizer {tokenizer.path}: "
                "rename it in catalog.path"
            )
