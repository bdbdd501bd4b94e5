"""Items become sequences of tokens, and a trie holds these sequences.

Semantic ids, titles, the tokenizer and the trie belong here. Prompts do not: they stand in `batches`, since they show
the items of a history.
"""

from wpauc_jax.catalog.build import build_catalog
from wpauc_jax.catalog.items import Catalog, catalog_from_codes
from wpauc_jax.catalog.trie import Trie, build_trie

__all__ = ["Catalog", "Trie", "build_catalog", "build_trie", "catalog_from_codes"]
