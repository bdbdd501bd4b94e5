"""A run without its interactions: what answers a history, and what a workspace adds its interactions to."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wpauc_jax.batches.chats import keep_chats
from wpauc_jax.batches.prompts import HISTORIES, PromptBuilder, PromptFormat, text_format
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.stored import open_catalog
from wpauc_jax.catalog.titles import title_tokens
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import Config, ConfigError, DataConfig, PromptConfig
from wpauc_jax.config.recorded import recorded_config
from wpauc_jax.data.dataset import Dataset, Items
from wpauc_jax.data.prepare import prepare_items
from wpauc_jax.decode import Guide, Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.evaluation.baselines import popularity
from wpauc_jax.evaluation.evaluate import Search, make_search
from wpauc_jax.evaluation.grounding import make_grounded_search, popularity_factors
from wpauc_jax.models import FAMILIES, Frozen, Params, Policy
from wpauc_jax.runtime.distributed import is_main_process, main_process_first
from wpauc_jax.runtime.files import read_json
from wpauc_jax.runtime.sharding import place_whole
from wpauc_jax.stages.first_model import first_model
from wpauc_jax.stages.history import excludes_history
from wpauc_jax.stages.homes import home, is_trained
from wpauc_jax.training.checkpoint import best_seal, load_params

Say = Callable[[str], None]


def tell(text: str) -> None:
    """A line for the user, from the main process alone."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Items, catalog and prompts of a work directory: all that is there before a model. Nothing here changes."""

    config: Config
    folder: pathlib.Path
    items: Items | Dataset  # raw ids and titles
    catalog: Catalog
    tokenizer: Tokenizer | None  # None: the catalog's tokens are the whole vocabulary
    titles: list[list[int]] | None  # their tokens, where items are semantic ids inside a language model
    builder: PromptBuilder


@dataclasses.dataclass(frozen=True, eq=False)
class Run(Prepared):
    """What a work directory and a configuration determine, whatever users did. Nothing here changes."""

    policy: Policy
    first_params: Params  # those that are trained, before any training
    frozen: Frozen  # the others
    guide: "Trained | None"  # the run that `eval.guide` names

    @property
    def shown(self) -> Sequence[Sequence[int]] | None:
        """How a history shows items, where that is not how they are answered: tokens, one list an item."""
        return HISTORIES[self.config.prompt.history](self.titles)

    @functools.cache  # noqa: B019 - one run a process
    def ranker(self, scoring: str) -> Ranker:
        """This run's model and catalog under a scoring rule."""
        return Ranker(self.policy, place_whole(trie_for(self.catalog.sequences(), scoring)), scoring)

    @functools.cached_property
    def asked_ranker(self) -> Ranker:
        """What answers: this run's model, catalog and scoring rule, and the guide where there is one."""
        ranker, guide = self.ranker(self.config.scoring), self.guide
        if guide is None:
            return ranker
        other = Guide(guide.run.ranker(guide.run.config.scoring), guide.params(), self.config.eval.guide_share)
        return dataclasses.replace(ranker, guide=other)

    @property
    def one_token(self) -> bool:
        """Whether one token tells an item: then the search is over after one product, and ranks are exact."""
        return self.ranker(self.config.scoring).trie.depth == 1

    @functools.cache  # noqa: B019 - one run a process; validation and test of all stages share its programs
    def search(self, num_beams: int) -> Search:
        """What makes lists of so many items, by `eval.search`."""
        return SEARCHES[self.config.eval.search](self, num_beams)

    def answers(self) -> dict[str, Any]:
        """What an answer depends on, and with it every checkpoint."""
        config = self.config
        return {
            "seed": config.seed,
            "scoring": config.scoring,
            "exclude_history": "on" if self.builder.exclude_history else "off",
            "data": {"fingerprint": self.items.fingerprint, "max_history": config.data.max_history},
            "catalog": {"fingerprint": self.catalog.fingerprint},
            "prompt": {"fingerprint": self.builder.fingerprint, "widths": self.builder.widths},
            "model": dataclasses.asdict(self.policy.config),
        }


def _by_beams(run: Run, num_beams: int) -> Search:
    return make_search(run.asked_ranker, num_beams=num_beams)


def _by_grounding(run: Run, num_beams: int) -> Search:
    gamma, nearer = run.config.eval.popularity, np.ones(run.catalog.num_items, np.float32)
    if gamma:
        nearer = popularity_factors(popularity(run.items.whole()), gamma)
    return make_grounded_search(run.policy, run.catalog, run.builder.form.lead, num_items=num_beams, nearer=nearer)


# By `eval.search`.
SEARCHES: dict[str, Callable[[Run, int], Search]] = {"beams": _by_beams, "grounding": _by_grounding}


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """The last trained stage of another run."""

    run: Run
    stage: str

    def params(self) -> Params:
        """All its best parameters."""
        return self.run.frozen.join(load_params(best_folder(self.run, self.stage), self.run.first_params))

    def seal(self) -> str | None:
        """What tells these parameters from any others."""
        return best_seal(best_folder(self.run, self.stage))


def best_folder(run: Run, stage: str) -> pathlib.Path:
    """Where a stage keeps its best parameters."""
    return home(run.config, run.folder, stage) / stage / "best"


def open_run(config: Config, folder: pathlib.Path, say: Say) -> Run:
    """`open_prepared`, with the model."""
    return Run(**with_model(open_prepared(config, folder, say), say))


def with_model(prepared: Prepared, say: Say) -> dict[str, Any]:
    """The fields of a Run: those of `prepared`, the model before any training, and the guide."""
    config = prepared.config
    policy, params, frozen = first_model(config, prepared.catalog, prepared.items.titles, prepared.tokenizer)
    fields = {field.name: getattr(prepared, field.name) for field in dataclasses.fields(prepared)}
    guide = None
    if config.eval.guide:
        guide = one_token_run("eval.guide", config.eval.guide, prepared.items, say)
        fields["builder"] = prepared.builder.with_guide(guide.run.builder)
        say(f"eval.guide={config.eval.guide}: its {guide.stage} has {config.eval.guide_share:g} of every score")
    return fields | {"policy": policy, "first_params": params, "frozen": frozen, "guide": guide}


def one_token_run(setting: str, folder: str, items: Items | Dataset, say: Say) -> Trained:
    """Another run of these items, each of them one token, which the setting of that name gives.

    Raises ConfigError for a folder that has none.
    """
    path = pathlib.Path(folder)
    record = read_json(path / "config.json")
    if not record:
        raise ConfigError(f"{setting}={folder!r} is no run's work directory: it has no readable config.json")
    config = recorded_config(record)
    config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, guide="", guide_share=0.5))
    trained = [stage for stage in ("rl", "sft") if is_trained(config, path, stage)]
    if not trained:
        raise ConfigError(f"{setting}={folder!r} has no trained stage; train it with mode=sft or mode=all first")
    run = open_run(config, path, say)
    if not run.one_token:
        raise ConfigError(
            f"{setting}={folder!r} answers with several tokens an item (catalog.ids={config.catalog.ids!r}); give "
            "a run with catalog.ids='atomic', which scores all items in one product"
        )
    if run.items.fingerprint != items.fingerprint:
        raise ConfigError(f"{setting}={folder!r} was trained on other data, so its items are not these")
    return Trained(run, trained[0])


def open_prepared(
    config: Config,
    folder: pathlib.Path,
    say: Say,
    *,
    read: Callable[[DataConfig, pathlib.Path, Say], Items | Dataset] = prepare_items,
) -> Prepared:
    """Prepares data and catalog if needed, checks that they are this configuration's.

    `read` says what is read of the prepared data.
    """
    _check_text(config)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_path = config.catalog.tokenizer or config.model.pretrained
    tokenizer = Tokenizer(tokenizer_path) if tokenizer_path else None
    with main_process_first("preparing data and catalog"):
        if tokenizer:
            other = config.sft_from or config.sft.start_from
            keep_chats(config.prompt, tokenizer, folder, say, elsewhere=pathlib.Path(other) if other else None)
        form = text_format(config.prompt, tokenizer) if tokenizer else PromptFormat()
        items = read(config.data, pathlib.Path(config.data.dir or folder / "data"), say)
        strict = config.mode != "doctor"  # which examines what it finds
        catalog = open_catalog(config.catalog, folder, items, tokenizer, form.end, say, strict=strict)
    titles = _titles_beside_ids(config, items, tokenizer)
    shown = HISTORIES[config.prompt.history](titles)
    limit, widths = config.prompt.max_tokens, config.prompt.widths
    excludes = excludes_history(config, folder, items, say)
    causal, timed = FAMILIES[config.model.family].causal, config.model.time_buckets > 0
    builder = PromptBuilder(catalog, config.data.max_history, form, limit, shown, widths, excludes, causal, timed)
    return Prepared(config, folder, items, catalog, tokenizer, titles, builder)


def _check_text(config: Config) -> None:
    """Raises ConfigError for a setting of text where there is none; before any data are read."""
    tasks = [f"sft.{task}" for task in config.sft.tasks]
    if tasks and config.catalog.ids == "title":
        raise ConfigError(f"{tasks[0]} needs semantic ids (catalog.ids) inside a model with a tokenizer")
    if config.catalog.tokenizer or config.model.pretrained:
        return
    usual = PromptConfig()
    told = {f"prompt.{name}": getattr(config.prompt, name) for name in ("style", "instruction", "history")}
    wrong = [f"{name}={value!r}" for name, value in told.items() if value != getattr(usual, name.partition(".")[2])]
    wrong += tasks + ["catalog.ids='title'"] * (config.catalog.ids == "title")
    if wrong:
        raise ConfigError(f"{wrong[0]} needs a tokenizer: set model.pretrained or catalog.tokenizer")


def _titles_beside_ids(config: Config, items: Items | Dataset, tokenizer: Tokenizer | None) -> list[list[int]] | None:
    """The tokens of every item's title where items are semantic ids inside a language model; otherwise None."""
    if tokenizer and config.catalog.ids != "title":
        limit = config.catalog.max_title_tokens
        return title_tokens(items.titles, items.item_ids, tokenizer, max_tokens=limit)
    return None
