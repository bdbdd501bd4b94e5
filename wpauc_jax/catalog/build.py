"""The catalogue that the settings ask for."""

from threadpoolctl import threadpool_limits

from wpauc_jax.catalog.embeddings import item_embeddings
from wpauc_jax.catalog.items import Catalog, catalog_from_codes
from wpauc_jax.catalog.sid import read_sid, residual_kmeans
from wpauc_jax.catalog.titles import catalog_from_titles
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import CatalogConfig, ConfigError
from wpauc_jax.data.dataset import Dataset


# Threads would add partial sums in the order in which they finish, and so round differently from run to run.
@threadpool_limits.wrap(limits=1)
def build_catalog(
    config: CatalogConfig, dataset: Dataset, tokenizer: Tokenizer | None = None, *, end: int = -1
) -> Catalog:
    """Every item of `dataset` as a unique token sequence, by `catalog.ids`.

    With a `tokenizer` items live in its vocabulary, semantic ids as new tokens behind it, and `end` ends each item.

    Raises ConfigError or DataError for settings, embeddings or an id file that do not fit the data set.
    """
    if config.ids == "title":
        if tokenizer is None:
            raise ConfigError("catalog.ids='title' needs a tokenizer: set model.pretrained or catalog.tokenizer")
        if not any(dataset.titles):
            raise ConfigError("catalog.ids='title' needs titles, and this data set has none")
        limit = config.max_title_tokens
        return catalog_from_titles(dataset.titles, dataset.item_ids, tokenizer, max_tokens=limit, end=end)
    if config.ids == "file":
        if not config.path:
            raise ConfigError("catalog.path is empty; catalog.ids='file' needs a .sid file")
        codes, sizes = read_sid(config.path, dataset.item_ids)
    else:
        codes = residual_kmeans(item_embeddings(config, dataset), config.levels, config.codes, config.seed)
        sizes = [config.codes] * config.levels
    if tokenizer is None:
        return catalog_from_codes(codes, sizes)
    return catalog_from_codes(codes, sizes, first_code=tokenizer.size, end=end)
