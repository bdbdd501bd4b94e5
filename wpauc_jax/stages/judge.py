"""What RL's rewards and false negatives look at, loaded once: embeddings, titles, another run's recommender."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.runtime.sharding import place_whole
from wpauc_jax.stages.run import Say, one_token_run
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.judge import Judge


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
        other = one_token_run("rl.reward_from", settings.reward_from, work.dataset, say)
        ranker, builder, params = other.run.ranker(other.run.config.scoring), other.run.builder, other.params()
        say(f"rl.reward_from={settings.reward_from}: its {other.stage} gives the collaborative reward")
    return Judge(embeddings, titles, ranker, params), builder


def title_numbers(titles: Sequence[str]) -> np.ndarray:
    """int32[I]: equal for items of one title, but for case and blanks; an item without a title is like no other."""
    plain = [" ".join(title.split()).casefold() for title in titles]
    number: dict[str, int] = {}
    return np.array([number.setdefault(title, i) if title else i for i, title in enumerate(plain)], np.int32)
