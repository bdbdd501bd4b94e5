"""Item embeddings for semantic ids: from texts, from co-occurrence in training sequences, or from a file."""

import pathlib
import sys
import zipfile
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from wpauc_jax.config import CatalogConfig, ConfigError
from wpauc_jax.data.dataset import Dataset

WINDOW = 5  # items that stand at most so far apart in a user's sequence co-occur


def item_embeddings(config: CatalogConfig, dataset: Dataset) -> np.ndarray:
    """float32[I, D] by `catalog.embedding`: rows of length 1 a part, or 0 where a part knows nothing of an item.

    The default does without texts where no item has one, and prints a line.
    Raises ConfigError for an unknown kind, a file that does not fit, or texts that the data set does not have.
    """
    kind = config.embedding
    if kind.endswith((".npy", ".npz")):
        return _from_file(pathlib.Path(kind), dataset)
    parts = kind.split("+")
    if set(parts) - set(PARTS) or len(set(parts)) != len(parts):
        raise ConfigError(
            f"catalog.embedding={kind!r} is unknown; choose text, cooccurrence, text+cooccurrence, a .npy or an .npz "
            "file"
        )
    if kind == CatalogConfig().embedding and not any(dataset.texts):
        print("no item has a text: items are embedded by co-occurrence alone", file=sys.stderr)
        parts = ["cooccurrence"]
    if "text" in parts and not any(dataset.texts):
        raise ConfigError(f"catalog.embedding={kind!r} needs texts, but no item has one; use cooccurrence")
    return np.concatenate([PARTS[part](dataset, config.embedding_width, config.seed) for part in parts], axis=1)


def text_embeddings(dataset: Dataset, width: int, seed: int) -> np.ndarray:
    """TF-IDF of the items' words, reduced by a truncated SVD: float32[I, <= width], rows of length 1 or 0."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+", dtype=np.float32)
    try:
        counts = vectorizer.fit_transform(dataset.texts)
    except ValueError as error:  # texts of punctuation only
        raise ConfigError("catalog.embedding: the items' texts have no words; use cooccurrence") from error
    return _reduced(counts, width, seed)


def cooccurrence_embeddings(dataset: Dataset, width: int, seed: int) -> np.ndarray:
    """Positive pointwise mutual information of items near each other in TRAINING, reduced by a truncated SVD.

    float32[I, <= width], rows of length 1, or 0 for an item that training does not show beside another.
    Source: Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization" (2014).
    """
    item, size = dataset.item, dataset.num_items
    user = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    train = dataset.split == 0
    counts = scipy.sparse.csr_matrix((size, size), dtype=np.float32)
    for distance in range(1, WINDOW + 1):
        near = train[:-distance] & train[distance:] & (user[:-distance] == user[distance:])
        left, right = item[:-distance][near], item[distance:][near]
        ones = np.ones(len(left), np.float32)
        counts = counts + scipy.sparse.csr_matrix((ones, (left, right)), shape=(size, size))
    counts = (counts + counts.T).tocoo()
    totals = np.asarray(counts.sum(1)).ravel()
    ratio = counts.data * (totals.sum() / (totals[counts.row] * totals[counts.col]))
    information = np.maximum(np.log(ratio), 0).astype(np.float32)
    return _reduced(scipy.sparse.csr_matrix((information, (counts.row, counts.col)), shape=(size, size)), width, seed)


PARTS = {"text": text_embeddings, "cooccurrence": cooccurrence_embeddings}  # by catalog.embedding's parts


def _reduced(matrix: scipy.sparse.csr_matrix, width: int, seed: int) -> np.ndarray:
    limit = min(matrix.shape)
    if width >= limit:  # too small to reduce: the rows are what an SVD of full rank would only rotate
        return _unit_rows(matrix.toarray())
    return _unit_rows(TruncatedSVD(width, random_state=seed).fit_transform(matrix))


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 1e-8, norms, np.inf)).astype(np.float32)


def _from_file(path: pathlib.Path, dataset: Dataset) -> np.ndarray:
    """float32[I, D] of a .npy file in the order of the items, or of an .npz file that says whose row is whose."""
    shown = f"catalog.embedding={str(path)!r}"
    try:
        found = np.load(path, allow_pickle=False)
        rows, named = (found["embeddings"], found["item_ids"]) if path.suffix == ".npz" else (found, None)
    except KeyError as error:
        raise ConfigError(f"{shown} lacks an array; it needs item_ids and embeddings") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{shown} cannot be read ({error})") from error
    count = dataset.num_items if named is None else len(named)
    if rows.ndim != 2 or len(rows) != count or not np.issubdtype(rows.dtype, np.floating):
        raise ConfigError(
            f"{shown} is {rows.dtype}{list(rows.shape)}; it needs floats [{count}, width], one row an item"
            + (" in the order of items.parquet" if named is None else "")
        )
    if not np.isfinite(rows).all():
        bad = int(np.argmin(np.isfinite(rows).all(1)))
        raise ConfigError(f"{shown}: row {bad} has a value that is not finite")
    if named is not None:
        rows = rows[_places(named.tolist(), dataset.item_ids, shown)]
    return rows.astype(np.float32)


def _places(named: list[str], wanted: Sequence[str], shown: str) -> list[int]:
    """Where the file has each item that the data set has."""
    place = {item: row for row, item in enumerate(named)}
    if len(place) < len(named):
        raise ConfigError(f"{shown} names an item twice")
    missing = [item for item in wanted if item not in place]
    if missing:
        raise ConfigError(
            f"{shown} lacks {len(missing)} of {len(wanted)} items, the first is {missing[0]!r}; take it from a run on "
            "the same items"
        )
    return [place[item] for item in wanted]
