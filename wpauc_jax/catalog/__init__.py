"""Items as token sequences, and the trie over them.

Here are semantic ids, titles and the tokenizer; prompts, which hold items of a history, are in `batches`.
"""

from wpauc_jax.catalog.build import build_catalog
from wpauc_jax.catalog.items import Catalog, catalog_from_codes
from wpauc_jax.catalog.trie import Trie, build_trie

__all__ = ["Catalog", "Trie", "build_catalog", "build_trie", "catalog_from_codes"]
