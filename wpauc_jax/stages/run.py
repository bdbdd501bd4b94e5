"""A run without its interactions: what answers a history, and what a workspace adds its interactions to."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from wpauc_jax.batches.chats import keep_chats
from wpauc_jax.batches.prompts import HISTORIES, PromptBuilder, PromptFormat, text_format
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.stored import open_catalog
from wpauc_jax.catalog.titles import title_tokens
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import Config, DataConfig
from wpauc_jax.data.dataset import Dataset, Items
from wpauc_jax.data.prepare import prepare_items
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.evaluation.evaluate import Search, make_search
from wpauc_jax.models import Frozen, Params, Policy
from wpauc_jax.runtime.distributed import main_process_first
from wpauc_jax.runtime.sharding import place_whole
from wpauc_jax.stages.first_model import first_model

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a work directory and a configuration determine, whatever users did. Nothing here changes."""

    config: Config
    folder: pathlib.Path
    items: Items | Dataset  # raw ids and titles
    catalog: Catalog
    tokenizer: Tokenizer | None  # None: the catalog's tokens are the whole vocabulary
    titles: list[list[int]] | None  # their tokens, where items are semantic ids inside a language model
    builder: PromptBuilder
    policy: Policy
    first_params: Params  # those that are trained, before any training
    frozen: Frozen  # the others

    @functools.cache  # noqa: B019 - one run a process
    def ranker(self, scoring: str) -> Ranker:
        """This run's model and catalog under a scoring rule."""
        return Ranker(self.policy, place_whole(trie_for(self.catalog.sequences(), scoring)), scoring)

    def search(self, num_beams: int) -> Search:
        """Beam search with this run's model, catalog and scoring rule."""
        return make_search(self.ranker(self.config.scoring), num_beams=num_beams)


def best_folder(run: Run, stage: str) -> pathlib.Path:
    """Where a stage keeps its best parameters; SFT's may be another work directory's."""
    home = pathlib.Path(run.config.sft_from) if stage == "sft" and run.config.sft_from else run.folder
    return home / stage / "best"


def open_run(
    config: Config,
    folder: pathlib.Path,
    say: Say,
    *,
    read: Callable[[DataConfig, pathlib.Path, Say], Items | Dataset] = prepare_items,
) -> Run:
    """Prepares data and catalog if needed, checks that they are this configuration's, makes the model.

    `read` says what is read of the prepared data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_path = config.catalog.tokenizer or config.model.pretrained
    tokenizer = Tokenizer(tokenizer_path) if tokenizer_path else None
    with main_process_first("preparing data and catalog"):
        if tokenizer:
            elsewhere = pathlib.Path(config.sft_from) if config.sft_from else None
            keep_chats(config.prompt, tokenizer, folder, say, elsewhere=elsewhere)
        form = text_format(config.prompt, tokenizer) if tokenizer else PromptFormat()
        items = read(config.data, pathlib.Path(config.data.dir or folder / "data"), say)
        strict = config.mode != "doctor"  # which examines what it finds
        catalog = open_catalog(config.catalog, folder, items, tokenizer, form.end, say, strict=strict)
    titles = _titles_beside_ids(config, items, tokenizer)
    shown = HISTORIES[config.prompt.history](titles)
    limit, widths = config.prompt.max_tokens, config.prompt.widths
    builder = PromptBuilder(catalog, config.data.max_history, form, limit, shown, widths)
    policy, params, frozen = first_model(config, catalog, items.titles, tokenizer)
    return Run(config, folder, items, catalog, tokenizer, titles, builder, policy, params, frozen)


def _titles_beside_ids(config: Config, items: Items | Dataset, tokenizer: Tokenizer | None) -> list[list[int]] | None:
    """The tokens of every item's title where items are semantic ids inside a language model; otherwise None."""
    if tokenizer and config.catalog.ids != "title":
        limit = config.catalog.max_title_tokens
        return title_tokens(items.titles, items.item_ids, tokenizer, max_tokens=limit)
    return None
