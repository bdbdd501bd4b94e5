"""A work directory opened: the data, catalogue, prompts and model that all stages of a run share."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from wpauc_jax.batches.chats import keep_chats
from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.prompts import HISTORIES, PromptBuilder, PromptFormat, text_format
from wpauc_jax.batches.title_tasks import Alignment, alignment_of
from wpauc_jax.batches.types import EvalBatch
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.stored import open_catalog
from wpauc_jax.catalog.titles import title_tokens
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import Config, ConfigError
from wpauc_jax.data.dataset import Dataset, positions, train_rows
from wpauc_jax.data.prepare import prepare
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.evaluation.evaluate import ExactSearch, Search, make_exact_search, make_search
from wpauc_jax.models import Frozen, Params, Policy
from wpauc_jax.runtime.distributed import main_process_first
from wpauc_jax.runtime.sharding import batch_rows, place_whole
from wpauc_jax.stages.first_model import first_model

Say = Callable[[str], None]

_VALID_DRAW = 0  # seed of the fixed draw of validation rows


@dataclasses.dataclass(frozen=True, eq=False)
class Workspace:
    """What a work directory and a configuration determine. Nothing here changes while a stage runs."""

    config: Config
    folder: pathlib.Path
    dataset: Dataset
    catalog: Catalog
    tokenizer: Tokenizer | None  # None: the catalogue's tokens are the whole vocabulary
    titles: list[list[int]] | None  # their tokens, where items are semantic ids inside a language model
    builder: PromptBuilder
    policy: Policy
    first_params: Params  # those that are trained, before any training
    frozen: Frozen  # the others

    @functools.cache  # noqa: B019 - one workspace a process
    def ranker(self, scoring: str) -> Ranker:
        """This run's model and catalog under a scoring rule."""
        return Ranker(self.policy, place_whole(trie_for(self.catalog.sequences(), scoring)), scoring)

    @functools.cached_property
    def sft_limits(self) -> np.ndarray:
        """How many leading items of each user SFT may see: int64[U]."""
        return train_rows(self.dataset, self._holdout)[0]

    @functools.cached_property
    def rl_positions(self) -> np.ndarray:
        """The samples of RL, by `rl.rows`."""
        if self.config.rl.rows == "same":
            return positions(self.dataset, "train")
        return train_rows(self.dataset, self._holdout)[1]

    @functools.cached_property
    def valid_positions(self) -> np.ndarray:
        """The validation samples of training: all, or a fixed draw of `eval.valid_users`."""
        rows, wanted = positions(self.dataset, "valid"), self.config.eval.valid_users
        if len(rows) <= wanted:
            return rows
        return np.sort(np.random.default_rng(_VALID_DRAW).choice(rows, wanted, replace=False))

    def alignment(self, task: str) -> Alignment:
        """The rows of an alignment task. Raises ConfigError unless items are semantic ids inside a language model."""
        if self.tokenizer is None or self.titles is None:
            raise ConfigError(f"sft.{task} needs semantic ids (catalog.ids) inside a model with a tokenizer")
        return alignment_of(task, self.config.prompt, self.tokenizer, self.catalog, self.titles)

    def search(self, num_beams: int) -> Search:
        """Beam search with this run's model, catalogue and scoring rule."""
        return make_search(self.ranker(self.config.scoring), num_beams=num_beams)

    def exact_search(self) -> ExactSearch:
        """Exact ranks and the error of `eval.num_beams` beams, with this run's model, catalogue and scoring rule."""
        config = self.config.eval
        return make_exact_search(self.ranker(self.config.scoring), num_beams=config.num_beams, ks=config.recall_at)

    def eval_batches(self, rows: np.ndarray) -> grain.MapDataset[EvalBatch]:
        """The samples at flat positions `rows`, once, in order, in this process's share of the batches."""
        size = self.config.eval.batch_size
        return eval_batches(self.dataset, self.builder, rows, size, rows=batch_rows(size))

    @property
    def _holdout(self) -> float:
        return self.config.rl.holdout if self.config.rl.rows == "latest" else 0.0

    def identity(self) -> dict[str, Any]:
        """What every checkpoint of this workspace depends on."""
        config = self.config
        return {
            "seed": config.seed,
            "scoring": config.scoring,
            "data": {"fingerprint": self.dataset.fingerprint, "max_history": config.data.max_history},
            "catalog": {"fingerprint": self.catalog.fingerprint},
            "prompt": {"fingerprint": self.builder.fingerprint, "widths": self.builder.widths},
            "model": dataclasses.asdict(self.policy.config),
            "rl": {"rows": config.rl.rows, "holdout": self._holdout},
            "eval": dataclasses.asdict(config.eval),
        }


def open_workspace(config: Config, folder: pathlib.Path, say: Say) -> Workspace:
    """Prepares data and catalogue if needed, checks that they are this configuration's, makes the model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_path = config.catalog.tokenizer or config.model.pretrained
    tokenizer = Tokenizer(tokenizer_path) if tokenizer_path else None
    with main_process_first("preparing data and catalog"):
        if tokenizer:
            elsewhere = pathlib.Path(config.sft_from) if config.sft_from else None
            keep_chats(config.prompt, tokenizer, folder, say, elsewhere=elsewhere)
        form = text_format(config.prompt, tokenizer) if tokenizer else PromptFormat()
        dataset = prepare(config.data, config.data.dir or folder / "data", say)
        strict = config.mode != "doctor"  # which examines what it finds
        catalog = open_catalog(config.catalog, folder, dataset, tokenizer, form.end, say, strict=strict)
    titles = _titles_beside_ids(config, dataset, tokenizer)
    shown = HISTORIES[config.prompt.history](titles)
    limit, widths = config.prompt.max_tokens, config.prompt.widths
    builder = PromptBuilder(catalog, config.data.max_history, form, limit, shown, widths)
    policy, params, frozen = first_model(config, catalog, dataset.titles, tokenizer)
    return Workspace(config, folder, dataset, catalog, tokenizer, titles, builder, policy, params, frozen)


def _titles_beside_ids(config: Config, dataset: Dataset, tokenizer: Tokenizer | None) -> list[list[int]] | None:
    """The tokens of every item's title where items are semantic ids inside a language model; otherwise None."""
    if tokenizer and config.catalog.ids != "title":
        limit = config.catalog.max_title_tokens
        return title_tokens(dataset.titles, dataset.item_ids, tokenizer, max_tokens=limit)
    return None
