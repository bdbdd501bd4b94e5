"""`sft.objective=self_hard`: middle layers of a decoder say which tokens are hard, at every step of an item's path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import EOS, TINY, forward, tiny_policy, tiny_ranker, variable_length_items
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import ConfigError, ModelConfig, OptimConfig, SftConfig
from wpauc_jax.models import init
from wpauc_jax.objectives import self_hard_loss
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import OBJECTIVES, make_sft_step
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(20)
CONFIG = SftConfig(objective="self_hard", hard_weight=0.6, distillation=0.2, hard_ratio=0.5)


def batch_of(items) -> SftBatch:
    """One target behind two tokens in each row."""
    rows = [[4, 7 + row, *ITEMS[item], EOS] for row, item in enumerate(items)]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, content in zip(tokens, rows, strict=True):
        row[: len(content)] = content
    return SftBatch(
        tokens=jnp.asarray(tokens),
        segments=jnp.ones(tokens.shape, jnp.int32),
        items=jnp.asarray(items, jnp.int32)[:, None],
        starts=jnp.ones((len(rows), 1), jnp.int32),
    )


def loss_of(config, batch):
    ranker, params = tiny_ranker(ITEMS), tiny_policy()[1]
    return jax.jit(lambda params: OBJECTIVES[config.objective](ranker, params, batch, jax.random.key(0), config))(
        params
    )


def test_every_step_counts_as_the_function_says():
    """Against logits of full passes: of the whole model, and of the model without its last layer."""
    (policy, params), items = tiny_policy(), [3, 11, 7]
    found, expected = loss_of(CONFIG, batch_of(items)), 0.0
    shallow = dataclasses.replace(TINY, num_layers=1)
    first = {**params, "layers": {"0": params["layers"]["0"]}}
    below = init(shallow, 0)[0]
    for row, item in enumerate(items):
        path = (*ITEMS[item], EOS)
        tokens = jnp.asarray([[4, 7 + row, *path]])
        z = np.asarray(forward(policy, params, tokens))[0]
        middle = np.asarray(below.logits(first, below.hidden(first, tokens)))[0]
        sequences = [(*other, EOS) for other in ITEMS]
        for t, token in enumerate(path):
            children = sorted({other[t] for other in sequences if other[:t] == path[:t]})
            if t and len(children) == 1:
                continue  # a forced token
            one = self_hard_loss(
                z[1 + t][children], middle[None, 1 + t][:, children], children.index(token),
                weight=0.6, ratio=0.5, distillation=0.2,
            )  # fmt: skip
            expected += float(one.sum)
    assert found.count == 3
    np.testing.assert_allclose(found.sum, expected, rtol=1e-4)


def test_without_its_weights_it_is_cross_entropy():
    batch = batch_of([3, 11, 7])
    plain = dataclasses.replace(CONFIG, hard_weight=0.0, distillation=0.0)
    found, entropy = loss_of(plain, batch), loss_of(SftConfig(), batch)
    np.testing.assert_allclose(found.sum, entropy.sum, rtol=1e-5)
    assert found.count == entropy.count
    assert loss_of(CONFIG, batch).sum > found.sum


@pytest.mark.parametrize("microbatches", [1, 2])
def test_it_learns(microbatches):
    batch = batch_of([3, 11, 7, 15])
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 40)
    config = dataclasses.replace(CONFIG, batch_size=4, microbatches=microbatches)
    step, state = make_sft_step(tiny_ranker(ITEMS), optimizer, config), init_state(tiny_policy()[1], optimizer)
    losses = []
    for _ in range(40):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 * losses[0] and np.isfinite(losses).all()


def test_models_without_middle_layers_are_refused():
    optimizer = make_optimizer(OptimConfig(), 1)
    with pytest.raises(ConfigError, match=r"sft.hard_layers=2 must be below model.num_layers=2"):
        make_sft_step(tiny_ranker(ITEMS), optimizer, dataclasses.replace(CONFIG, hard_layers=2))
    sasrec = ModelConfig(
        family="sasrec", vocab_size=24, width=8, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=4, num_positions=9
    )
    with pytest.raises(ConfigError, match=r"'self_hard' reads middle layers, which model.family='sasrec' does not"):
        make_sft_step(dataclasses.replace(tiny_ranker(ITEMS), policy=init(sasrec)[0]), optimizer, CONFIG)
