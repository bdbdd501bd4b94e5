"""configs/recipes: the others differ from tawin in what their docstrings say, and train."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.configs.test_configs import parse
from tests.worlds import some_rl_batch, tiny_policy, tiny_ranker, variable_length_items
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)
RECIPES = {"tawin": "sid", "rere": "title", "minionerec": "sid", "sdpo": "title"}


def changed(one, other, prefix=""):
    """The settings in which two configurations differ, with the values of the second."""
    found = {}
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(a):
            found |= changed(a, b, f"{prefix}{field.name}.")
        elif a != b:
            found[prefix + field.name] = b
    return found


RERE = {
    "scoring": "vocab",
    "rl.epochs": 2.0,
    "rl.reward": "ranking",
    "rl.weighting": "none",
    "rl.ref_sync_steps": 512,
    "eval.num_beams": 50,
    "eval.recall_at": (1, 3, 5, 10, 20, 50),
    "eval.ndcg_at": (3, 5, 10, 20, 50),
}


def test_rere_is_tawins_base_with_the_ranking_reward_and_a_moving_reference():
    tawin, rere = (parse(f"recipes/{name}.py:0.5B-title") for name in ("tawin", "rere"))
    assert changed(tawin, rere) == RERE
    assert rere.rl.ref_sync_mix == 0.6 and rere.rl.std == "sample" and rere.rl.inject_target == "never"


def test_minionerec_is_rere_on_ids_with_larger_batches_and_alignment():
    rere, mini = (
        parse(f"recipes/{name}.py:0.5B-{items}") for name, items in (("rere", "title"), ("minionerec", "sid"))
    )
    assert changed(rere, mini) == {
        "catalog.ids": "balanced",
        "catalog.codes": 256,
        "sft.batch_size": 1024,
        "sft.microbatches": 8,
        "sft.title_to_id": 1.0,
        "sft.id_to_title": 1.0,
        "sft.ids_to_title": 1.0,
        "sft.titles_to_id": 1.0,
        "sft.titles_to_title": 1.0,
        "rl.batch_size": 64,
    }


def test_sdpo_prefers_the_target_over_three_drawn_items():
    tawin, sdpo = (parse(f"recipes/{name}.py:0.5B-title") for name in ("tawin", "sdpo"))
    assert changed(tawin, sdpo) == {
        "scoring": "vocab",
        "rl.kind": "sdpo",
        "rl.negatives": "random",
        "rl.group_size": 4,
        "rl.weighting": "none",
        "rl.kl_coef": 0.0,
        "rl.epochs": 3.0,
    }


def test_lcrec_d3_and_bigrec_are_sft_alone():
    recipes = (("tawin", "sid"), ("lcrec", "sid"), ("tawin", "title"), ("d3", "title"), ("bigrec", "title"))
    tawin, lcrec, titles, d3, bigrec = (parse(f"recipes/{name}.py:0.5B-{items}") for name, items in recipes)
    assert changed(tawin, lcrec) == {
        "catalog.ids": "rqvae",
        "catalog.levels": 4,
        "sft.epochs": 4.0,
        "sft.evals": 4,
        "sft.title_to_id": 1.0,
        "sft.id_to_title": 1.0,
        "sft.ids_to_title": 1.0,
        "sft.titles_to_id": 1.0,
        "rl.epochs": 0.0,
    }
    assert changed(titles, d3) == {"rl.epochs": 0.0}
    assert changed(titles, bigrec) == {"rl.epochs": 0.0, "eval.search": "grounding"}


@pytest.mark.parametrize("name", RECIPES)
def test_its_rl_settings_make_a_step(name):
    """The recipe's own RL on a tiny model, which learns the rows that it sees again and again."""
    config = parse(f"recipes/{name}.py:0.5B-{RECIPES[name]}")
    settings = dataclasses.replace(
        config.rl, batch_size=3, optim=dataclasses.replace(config.rl.optim, learning_rate=3e-3)
    )
    optimizer = make_optimizer(settings.optim, 20)
    step = make_rl_step(tiny_ranker(ITEMS, config.scoring), optimizer, settings, seed=0)
    state = init_state(tiny_policy()[1], optimizer, reference=settings.keeps_reference)
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(3):
        state, metrics = step(state, some_rl_batch())
    assert all(np.isfinite(value).all() for value in metrics.values())
    moved = jax.tree.map(lambda a, b: float(np.abs(a - np.asarray(b)).max()), before, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-4
