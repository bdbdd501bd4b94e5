"""What RL's rewards and false negatives look at, loaded once: embeddings, titles, another run's recommender."""

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.config import ConfigError
from wpauc_jax.config.recorded import recorded_config
from wpauc_jax.runtime.files import read_json
from wpauc_jax.runtime.sharding import place_whole
from wpauc_jax.stages.homes import is_trained
from wpauc_jax.stages.run import Run, Say, best_folder, open_run
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.checkpoint import load_params
from wpauc_jax.training.judge import Judge

_STAGES = ("rl", "sft")  # whose best parameters answer, the last stage first


def open_judge(work: Workspace, say: Say) -> tuple[Judge, PromptBuilder | None]:
    """The judge of a run's RL, and what makes prompts for the other run's model where there is one.

    Raises ConfigError for a work directory that has no recommender of these items with one token each.
    """
    settings = work.config.rl
    embeddings = titles = ranker = params = builder = None
    if settings.needs_embeddings:
        from wpauc_jax.catalog.embeddings import item_embeddings  # and with it scikit-learn

        embeddings = place_whole(jnp.asarray(item_embeddings(work.config.catalog, work.dataset)))
    if settings.false_negatives != "keep" and settings.false_negative == "title":
        titles = place_whole(jnp.asarray(title_numbers(work.dataset.titles)))
    if "collaborative" in settings.weights_of_rewards:
        run, stage = _other_run(settings.reward_from, work, say)
        ranker, builder = run.ranker(run.config.scoring), run.builder
        params = run.frozen.join(load_params(best_folder(run, stage), run.first_params))
        say(f"rl.reward_from={settings.reward_from}: its {stage} gives the collaborative reward")
    return Judge(embeddings, titles, ranker, params), builder


def title_numbers(titles: Sequence[str]) -> np.ndarray:
    """int32[I]: equal for items of one title, but for case and blanks; an item without a title is like no other."""
    plain = [" ".join(title.split()).casefold() for title in titles]
    number: dict[str, int] = {}
    return np.array([number.setdefault(title, i) if title else i for i, title in enumerate(plain)], np.int32)


def _other_run(folder: str, work: Workspace, say: Say) -> tuple[Run, str]:
    path = pathlib.Path(folder)
    record = read_json(path / "config.json")
    if not record:
        raise ConfigError(f"rl.reward_from={folder!r} is no run's work directory: it has no readable config.json")
    config = recorded_config(record)
    trained = [stage for stage in _STAGES if is_trained(config, path, stage)]
    if not trained:
        raise ConfigError(f"rl.reward_from={folder!r} has no trained stage; train it with mode=sft or mode=all first")
    run = open_run(config, path, say)
    if not run.one_token:
        raise ConfigError(
            f"rl.reward_from={folder!r} answers with several tokens an item (catalog.ids={config.catalog.ids!r}); give "
            "a run with catalog.ids='atomic', which scores a group in one product"
        )
    if run.items.fingerprint != work.dataset.fingerprint:
        raise ConfigError(f"rl.reward_from={folder!r} was trained on other data, so its items are not these")
    return run, trained[0]
