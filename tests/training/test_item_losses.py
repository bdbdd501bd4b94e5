"""`sft.objective`: losses over the scores of all items, against plain loops, and each learns what users take."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runtime import test_sharding as sharded
from tests.worlds import TINY, tiny_policy
from wpauc_jax import models
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import ConfigError, OptimConfig, SftConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.runtime import sharding
from wpauc_jax.training.item_losses import ITEM_LOSSES
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

ITEMS = [(token,) for token in range(3, 23)]
USERS = 50
CONFIGS = {
    "gbce": SftConfig(objective="gbce", negatives=8),
    "bpr": SftConfig(objective="bpr", negatives=8),
    "sl_at_k": SftConfig(objective="sl_at_k"),
    "opauc": SftConfig(objective="opauc", beta=0.2),
    "llpauc": SftConfig(objective="llpauc", negatives=8, alpha=1.0, beta=0.25),
    "pairwise": SftConfig(objective="pairwise", target_k=2),
}
DRAW = np.random.default_rng(0)
SCORES = DRAW.normal(size=(4, 9)).astype(np.float32)
SCORES[1, [2, 5]] = -np.inf  # items of the history
TARGET, COUNTED = np.array([3, 0, 8, 1]), np.array([True, True, True, False])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def negatives_of(row: int) -> list[float]:
    """Scores of the other items that may answer, the best first."""
    others = [float(s) for item, s in enumerate(SCORES[row]) if item != TARGET[row] and s > -np.inf]
    return sorted(others, reverse=True)


def plain_sl_at_k(row: int) -> float:
    total = math.log(sum(math.exp(s) for s in [*negatives_of(row), SCORES[row, TARGET[row]]]))
    logp, threshold = SCORES[row, TARGET[row]] - total, negatives_of(row)[2] - total
    return -logp / (1 + math.exp(threshold - logp))


def plain_opauc(row: int) -> float:
    """Two tenths of 8 negatives are 1.6: the best one, and .6 of the second. Of 6 they are 1.2."""
    negatives = negatives_of(row)
    end = 0.2 * len(negatives)
    shares = [min(max(end - rank, 0), 1) for rank in range(len(negatives))]
    pairs = zip(shares, negatives, strict=True)
    return sum(share * softplus(s - SCORES[row, TARGET[row]]) for share, s in pairs) / end


def plain_pairwise(row: int) -> float:
    weights = [math.exp(-abs(rank - 1)) for rank in range(len(negatives_of(row)))]
    pairs = zip(weights, negatives_of(row), strict=True)
    return sum(w * softplus(s - SCORES[row, TARGET[row]]) for w, s in pairs) / sum(weights)


@pytest.mark.parametrize(
    ("name", "plain"), [("sl_at_k", plain_sl_at_k), ("opauc", plain_opauc), ("pairwise", plain_pairwise)]
)
def test_a_loss_is_its_plain_loop(name, plain):
    found = ITEM_LOSSES[name](jnp.asarray(SCORES), TARGET, COUNTED, jax.random.key(0), CONFIGS[name])
    assert found.count == 3
    np.testing.assert_allclose(found.sum, sum(plain(row) for row in range(3)), rtol=1e-5)


@pytest.mark.parametrize("name", ["gbce", "bpr"])
def test_negatives_are_drawn_among_what_may_answer(name):
    """With many draws each item that may answer is pushed down, none of the history, and the target is pushed up."""
    config = dataclasses.replace(CONFIGS[name], negatives=500)
    slopes = jax.grad(lambda s: ITEM_LOSSES[name](s, TARGET, COUNTED, jax.random.key(1), config).mean())(SCORES)
    assert np.isfinite(slopes).all() and not slopes[3].any()
    for row in range(3):
        others = [i for i in range(9) if i != TARGET[row] and SCORES[row, i] > -np.inf]
        assert slopes[row, TARGET[row]] < 0 < min(slopes[row, i] for i in others)
    assert not slopes[1, [2, 5]].any()


def plain_drawn(name: str, row: int, drawn: list[int]) -> float:
    """The loss of one row against the drawn items that may answer and are not its target."""
    s, mine = SCORES[row], float(SCORES[row, TARGET[row]])
    kept = [float(s[item]) for item in drawn if item != TARGET[row] and s[item] > -np.inf]
    if name == "bpr":
        return sum(softplus(other - mine) for other in kept) / len(kept)
    share = 8 / (len(s) - 1)  # as many are drawn as there are other items: 1
    beta = 1 - 0.75 * (1 - share)
    return (beta * softplus(-mine) + sum(softplus(other) for other in kept)) / (len(kept) + 1)


@pytest.mark.parametrize("name", ["gbce", "bpr"])
def test_a_loss_of_drawn_negatives_is_its_plain_loop(name):
    """On the very draws of a key under which row 1 draws items of its history, and rows draw their targets."""
    key = jax.random.key(4)
    drawn = np.asarray(jax.random.randint(key, (4, 8), 0, 9)).tolist()
    assert {2, 5} & set(drawn[1]) and any(TARGET[row] in drawn[row] for row in range(3))
    found = ITEM_LOSSES[name](jnp.asarray(SCORES), TARGET, COUNTED, key, CONFIGS[name])
    assert found.count == 3
    np.testing.assert_allclose(found.sum, sum(plain_drawn(name, row, drawn[row]) for row in range(3)), rtol=1e-5)


def test_llpauc_is_its_plain_loop():
    """1.5 of the 3 targets that count, and a quarter of the draws that may answer them."""
    key = jax.random.key(4)
    drawn = np.asarray(jax.random.randint(key, (4, 8), 0, 9)).tolist()
    config = dataclasses.replace(CONFIGS["llpauc"], alpha=0.5)
    found = ITEM_LOSSES["llpauc"](jnp.asarray(SCORES), TARGET, COUNTED, key, config)
    mine = top([SCORES[row, TARGET[row]] for row in range(3)], 1.5)
    kept = [
        (row, item) for row in range(3) for item in drawn[row] if item != TARGET[row] and SCORES[row, item] > -np.inf
    ]
    others = top([SCORES[at] for at in kept], 0.25 * len(kept))
    pairs = [(w * v, (1 - p + q) ** 2) for w, p in mine for v, q in others]
    assert found.count == 3
    np.testing.assert_allclose(found.mean(), sum(w * loss for w, loss in pairs) / sum(w for w, _ in pairs), rtol=1e-5)


def top(scores: list[float], end: float) -> list[tuple[float, float]]:
    """The best `end` scores as (weight, probability), the last one in part."""
    best = sorted((1 / (1 + math.exp(-s)) for s in scores), reverse=True)
    return [(min(end - rank, 1.0), p) for rank, p in enumerate(best) if rank < end]


@pytest.mark.parametrize("name", ITEM_LOSSES)
def test_fifty_users_are_learnt(name):
    """Each user takes one item after another, which an earlier item tells; the history may not answer."""
    items = np.random.default_rng(3).integers(0, len(ITEMS), (USERS, 1))
    target = (items * 7 + 3) % len(ITEMS)  # none is its own
    ranker = Ranker(tiny_policy(TINY)[0], trie_for(ITEMS, "constrained"))
    batch = SftBatch(
        tokens=jnp.asarray(np.concatenate([np.ones((USERS, 1)), items + 3, target + 3], axis=1), jnp.int32),
        segments=jnp.ones((USERS, 3), jnp.int32),
        items=jnp.asarray(target, jnp.int32),
        starts=jnp.ones((USERS, 1), jnp.int32),
        excluded=jnp.asarray(items[:, :, None], jnp.int32),
    )
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 60)
    state = init_state(tiny_policy(TINY)[1], optimizer)
    step = make_sft_step(ranker, optimizer, CONFIGS[name])
    for _ in range(60):
        state, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"]) and metrics["targets"] == USERS
    hidden = ranker.policy.answer_states(state.params, batch.tokens, batch.segments, batch.starts, 1, None)
    scores = ranker.item_logits(state.params, hidden.reshape(USERS, -1))
    best = jnp.argmax(scores.at[jnp.arange(USERS), items[:, 0]].set(-jnp.inf), axis=1)
    assert (np.asarray(best) == target[:, 0]).mean() > 0.9


@functools.cache
def steps_on(mesh: tuple[int, int, int], name: str):
    """The parameters after three steps on one batch, and each step's loss."""
    items = [(token,) for token in range(3, 63)]
    rng = np.random.default_rng(5)
    target = rng.integers(0, len(items), (8, 4))
    batch = SftBatch(
        tokens=np.concatenate([np.ones((8, 1)), target + 3], axis=1).astype(np.int32),
        segments=np.ones((8, 5), np.int32),
        items=target.astype(np.int32),
        starts=np.tile(np.arange(4, dtype=np.int32), (8, 1)),
        excluded=rng.integers(-1, len(items), (8, 4, 3)).astype(np.int32),
    )
    with jax.set_mesh(sharded.mesh_of(*mesh)):
        policy, params = models.init(sharded.MODEL, 0)
        ranker = Ranker(policy, sharding.place_whole(trie_for(items, "constrained")))
        step = make_sft_step(ranker, sharded.OPTIMIZER, CONFIGS[name])
        state, losses, placed = init_state(params, sharded.OPTIMIZER), [], sharding.place_batch(batch)
        for _ in range(3):
            state, told = step(state, placed)
            losses.append(float(told["loss"]))
        return jax.device_get(state.params), losses


@pytest.mark.parametrize("name", ITEM_LOSSES)
def test_on_a_mesh_it_is_what_one_device_computes(name):
    found, wanted = steps_on((2, 2, 2), name), steps_on(sharded.ONE, name)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=0), found[0], wanted[0])


def test_several_tokens_an_item_are_refused():
    ranker = Ranker(tiny_policy()[0], trie_for([(3, 4), (3, 5)], "constrained"))
    with pytest.raises(ConfigError, match=r"sft.objective='bpr' needs one token an item"):
        make_sft_step(ranker, None, CONFIGS["bpr"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": 3}, r"sft\.negatives=3 means nothing where sft.objective is another one than 'gbce' or 'bpr'"),
        ({"objective": "bpr", "calibration": 0.1}, r"sft\.calibration=0\.1 means nothing"),
        ({"objective": "opauc", "target_k": 5}, r"sft\.target_k=5 means nothing"),
        ({"objective": "pairwise", "softness": 2.0}, r"sft\.softness=2\.0 means nothing"),
        ({"objective": "sl_at_k", "temperature": 2.0}, r"sft\.temperature=2\.0 means nothing"),
        ({"objective": "gbce", "beta": 0.5}, r"sft\.beta=0\.5 means nothing"),
        ({"objective": "gbce", "loss": "lm"}, r"sft\.objective='gbce' needs sft\.loss='catalog'"),
        ({"objective": "gbce", "label_smoothing": 0.1}, r"needs .* sft\.label_smoothing=0"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(ConfigError, match=message):
        SftConfig(**changes)
