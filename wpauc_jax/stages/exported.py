"""An export folder as a recommender: what `export` wrote is enough, without interactions and without the run."""

import functools
import json
import pathlib
from typing import Any

import numpy as np

from wpauc_jax.batches.prompts import PromptBuilder, PromptFormat
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.data.errors import DataError
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.evaluation.evaluate import make_search
from wpauc_jax.models import load_pretrained, load_t5
from wpauc_jax.runtime.files import read_json
from wpauc_jax.runtime.sharding import place_whole
from wpauc_jax.stages.recommender import Answering, Recommender

FORMAT = 2  # of prompt.json; 1 lacked what is needed to answer

_BATCH = 64  # users that are answered at once


def is_export(folder: pathlib.Path) -> bool:
    """Whether `export` wrote the folder."""
    return (folder / "prompt.json").is_file() and (folder / "items.jsonl").is_file()


def open_export(folder: pathlib.Path) -> Recommender:
    """The recommender of an export folder.

    Raises ConfigError for a folder of an earlier version, DataError and PretrainedError for one that is damaged.
    """
    facts = read_json(folder / "prompt.json")
    if facts.get("format") != FORMAT:
        raise ConfigError(
            f"{folder / 'prompt.json'} is damaged, or another version of this program wrote it; export the run again"
        )
    catalog = Catalog.load(folder / "catalog.npz")
    ids, titles = _items(folder / "items.jsonl", catalog.num_items)
    settings = ModelConfig(dtype=facts["dtype"])
    is_t5 = read_json(folder / "config.json").get("model_type") == "t5"
    policy, params = load_t5(folder, settings) if is_t5 else load_pretrained(folder, settings=settings)
    trie = place_whole(trie_for(catalog.sequences(), facts["scoring"]))
    return Recommender(
        catalog=catalog,
        builder=_builder(facts, catalog, folder),
        search_of=functools.partial(make_search, Ranker(policy, trie, facts["scoring"])),
        answering=Answering(facts["stage"], facts["step"], params, tuple(facts.get("changes", ()))),
        item_ids=ids,
        titles=titles,
        num_beams=facts["num_beams"],
        batch_size=_BATCH,
    )


def _items(path: pathlib.Path, count: int) -> tuple[list[str], list[str]]:
    """Raw ids and titles, in the order of their numbers."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        ids, titles = [row["id"] for row in rows], [row["title"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); export the run again") from error
    if len(ids) != count:
        raise DataError(f"{path} has {len(ids)} items, the catalog beside it {count}; export the run again")
    return ids, titles


def _builder(facts: dict[str, Any], catalog: Catalog, folder: pathlib.Path) -> PromptBuilder:
    form = PromptFormat(
        head=tuple(facts["head"]),
        lead=tuple(facts["lead"]),
        tail=tuple(facts["tail"]),
        line_end=facts["line_end"],
        end=facts["end"],
    )
    shown = None
    if facts["history"] == "titles":
        with np.load(folder / "shown.npz", allow_pickle=False) as arrays:
            shown = [row[row >= 0].tolist() for row in arrays["tokens"]]
    widths = tuple(facts["widths"])
    return PromptBuilder(
        catalog, facts["max_history"], form, facts["max_tokens"], shown, widths, facts["exclude_history"]
    )
