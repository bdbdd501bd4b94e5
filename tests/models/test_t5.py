"""T5 against plain NumPy on the folder that it exports, cached and whole, searched, trained, packed and on a mesh."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.models.plain_t5 import PlainT5, bucket
from tests.worlds import some_prompts
from wpauc_jax.batches.types import PromptBatch, RlBatch, SftBatch
from wpauc_jax.config import ConfigError, MeshConfig, ModelConfig, OptimConfig, RlConfig
from wpauc_jax.decode import Ranker, scoring
from wpauc_jax.models import Dropout, Policy, PretrainedError, Prompts, init, load_t5, make_policy, save_pretrained
from wpauc_jax.models.t5 import buckets
from wpauc_jax.runtime.sharding import make_mesh, place_state
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

CONFIG = ModelConfig(
    family="t5",
    vocab_size=24,
    num_layers=2,
    width=16,
    num_heads=2,
    num_kv_heads=2,
    head_dim=6,
    ffn_width=24,
    init_std=1.0,
)
PAIRS = [(a, b) for a in (3, 4, 5) for b in (6, 7, 8, 9)]
SHALLOW = dataclasses.replace(CONFIG, num_layers=1)
ITEMS = [(a, b, c) for a in (3, 4, 5) for b in (6, 7, 8) for c in (9, 10)]

answer_states = jax.jit(Policy.answer_states, static_argnums=(0, 5))


@functools.cache
def model(config=CONFIG):
    """Numbers of about the size of T5's first ones; nothing is compiled for them."""
    policy, shapes = make_policy(config)
    rng = np.random.default_rng(3)

    def drawn(axes, shape):
        scale, centre = (0.2, 1.0) if axes == ("norm",) else (0.3, 0.0)
        return jnp.asarray(centre + scale * rng.normal(size=shape), jnp.float32)

    with jax.ensure_compile_time_eval():
        return policy, shapes.map(lambda _, leaf, axes: drawn(axes, leaf.shape))


@functools.cache
def ranker(rule):
    return Ranker(model()[0], scoring.trie_for(ITEMS, rule), rule)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5") / "model"
    save_pretrained(folder, *model())
    return folder


@functools.cache
def truth(rule, plain):
    """Log-probabilities float64[B, I] of all items behind `some_prompts`, by one plain pass each."""
    prompts = some_prompts()
    out = np.zeros((len(prompts.lengths), len(ITEMS)))
    for b, length in enumerate(np.asarray(prompts.lengths)):
        for i, item in enumerate(ITEMS):
            logits = plain.logits(np.asarray(prompts.tokens)[b, :length].tolist(), item)
            for t, token in enumerate(item):
                legal = sorted({other[t] for other in ITEMS if other[:t] == item[:t]})
                among = logits[t][legal] if rule == "constrained" else logits[t]
                out[b, i] += logits[t][token] - np.logaddexp.reduce(among)
    return out


@pytest.fixture(scope="module")
def plain(exported):
    return PlainT5(exported)


def test_search_and_exact_scores_are_those_of_a_plain_loop_over_the_exported_folder(plain):
    params, asks = model()[1], ranker("constrained")

    @jax.jit
    def both(params, prompts):
        asked = asks.prefill(params, prompts)
        return asks.search(params, asked, num_beams=len(ITEMS)), asks.score_all(params, asked, block_size=4)

    found, scores = both(params, some_prompts())
    expected = truth("constrained", plain)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_array_equal(found.items, np.argsort(-expected, axis=1))


def test_scores_over_the_vocabulary_are_those_of_a_plain_loop(plain):
    items = jnp.broadcast_to(jnp.arange(len(ITEMS)), (3, len(ITEMS)))
    asks, params = ranker("vocab"), model()[1]
    score = jax.jit(lambda params, prompts: asks.score(params, asks.prefill(params, prompts), items).sum(-1))
    np.testing.assert_allclose(score(params, some_prompts()), truth("vocab", plain), atol=1e-4)


def test_tokens_one_by_one_equal_the_full_pass():
    policy, params = model()
    prompts = some_prompts()
    answers = jnp.asarray(np.random.default_rng(0).integers(0, 24, (3, 4, 3)), jnp.int32)

    @jax.jit
    def in_steps(params, prompts, answers):
        cache = policy.prefill(params, prompts)
        first, past = policy.extend(params, cache, answers[..., :1])
        second, _ = policy.extend(params, cache, answers[..., 1:], past)
        return cache.hidden, jnp.concatenate([first, second], axis=2)

    start, cached = in_steps(params, prompts, answers)
    lengths = np.repeat(np.asarray(prompts.lengths), 4)
    rows = np.zeros((12, prompts.tokens.shape[1] + 3), np.int32)
    for row, (length, answer) in enumerate(zip(lengths, np.asarray(answers).reshape(12, 3), strict=True)):
        rows[row, :length] = np.asarray(prompts.tokens)[row // 4, :length]
        rows[row, length : length + 3] = answer
    full = answer_states(policy, params, rows, None, lengths[:, None] - 1, 4)[:, 0]
    np.testing.assert_allclose(full[:, 0], jnp.repeat(start, 4, axis=0), atol=1e-5)
    np.testing.assert_allclose(full[:, 1:], cached.reshape(12, 3, -1), atol=1e-5)


def test_packed_pieces_do_not_see_each_other_nor_the_answers():
    policy, params = model()
    tokens = jnp.asarray([[1, 5, 6, 9, 4, 7, 1, 8, 3, 6, 9, 0, 0]], jnp.int32)
    segments = jnp.asarray([[1] * 6 + [2] * 5 + [0] * 2], jnp.int32)
    packed = answer_states(policy, params, tokens, segments, jnp.asarray([[2, 7, 0]], jnp.int32), 3)
    assert np.isfinite(packed).all()
    for m, (begin, start, end) in enumerate([(0, 2, 6), (6, 7, 11)]):
        piece, own = np.zeros((1, 13), np.int32), np.zeros((1, 13), np.int32)
        piece[0, : end - begin], own[0, : end - begin] = tokens[0, begin:end], 1
        alone = answer_states(policy, params, piece, own, np.array([[start - begin, 0, 0]], np.int32), 3)
        np.testing.assert_allclose(packed[:, m], alone[:, 0], atol=1e-5)


def test_buckets_of_distances_are_the_papers():
    distance = np.arange(-300, 301)
    for both_ways in (True, False):
        expected = [bucket(int(one), 32, 128, both_ways) for one in distance]
        np.testing.assert_array_equal(buckets(distance, both_ways=both_ways), expected)


def test_dropout_acts_on_both_sides():
    """Without a decoder's dropout the state at its first token would be that of a prompt whose encoder drops."""
    policy, params = model(SHALLOW)
    prompts = Prompts(jnp.ones((1, 5), jnp.int32), jnp.asarray([5]))

    @jax.jit
    def states(params, dropout):
        tokens, starts = jnp.ones((1, 6), jnp.int32), jnp.full((1, 1), 4, jnp.int32)
        both = policy.answer_states(params, tokens, None, starts, 1, dropout)[0, 0, 0]
        return policy.prefill(params, prompts, dropout.within(0)).hidden[0], both

    encoder, both = states(params, Dropout(jax.random.key(0), 0.5))
    other, _ = states(params, Dropout(jax.random.key(1), 0.5))
    assert min(np.abs(encoder - other).max(), np.abs(encoder - both).max()) > 1e-3


def test_it_learns_fifty_users():
    """Each user's item is told by the two before it, in either order of which it is another one."""
    policy, params = init(dataclasses.replace(SHALLOW, vocab_size=40, width=32), 0)
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(a, b) for a in range(3, 13) for b in range(3, 13) if a != b])[:50]
    items = [(a, b) for a in range(13, 23) for b in range(23, 30)]
    asks = Ranker(policy, scoring.trie_for(items, "constrained"))
    targets = rng.permutation(len(items))[:50]
    tokens = np.concatenate([np.ones((50, 1)), pairs, np.array(items)[targets]], axis=1)
    tokens = jnp.asarray(tokens, jnp.int32)
    batch = SftBatch(
        tokens, jnp.ones_like(tokens), jnp.asarray(targets[:, None], jnp.int32), jnp.full((50, 1), 2, jnp.int32)
    )
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0, weight_decay=0.0), 150)
    step, state = make_sft_step(asks, optimizer), init_state(params, optimizer)
    for _ in range(150):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.05


def test_a_step_of_rl_has_the_gradient_of_the_plain_computation():
    """Against the textbook form: items fixed, each answer in a row with its prompt, loss = -mean A mean_t logp."""
    policy, params = model(SHALLOW)
    asks, prompts = Ranker(policy, scoring.trie_for(PAIRS, "constrained")), some_prompts()
    config = RlConfig(group_size=4, target_k=2, kl_coef=0.0, inject_target="always", weighting="none")
    batch = RlBatch(PromptBatch(prompts.tokens, prompts.lengths), jnp.asarray([4, 9, 11], jnp.int32))

    found = jax.jit(lambda params: asks.search(params, asks.prefill(params, prompts), num_beams=4).items)(params)
    found = np.asarray(found).copy()
    missing = ~(found == np.asarray(batch.target)[:, None]).any(1)
    found[missing, -1] = np.asarray(batch.target)[missing]
    reward = (found == np.asarray(batch.target)[:, None]).astype(np.float64)
    advantage = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, ddof=1, keepdims=True) + 1e-4)
    lengths = np.repeat(np.asarray(prompts.lengths), 4)
    rows = np.zeros((12, prompts.tokens.shape[1] + 2), np.int32)
    for row, (length, item) in enumerate(zip(lengths, found.reshape(-1), strict=True)):
        rows[row, :length] = np.asarray(prompts.tokens)[row // 4, :length]
        rows[row, length : length + 2] = PAIRS[item]

    @jax.jit
    @jax.grad
    def plain_gradient(params):
        segments = jnp.where(jnp.arange(rows.shape[1])[None] < lengths[:, None] + 2, 1, 0)
        states = policy.answer_states(params, jnp.asarray(rows), segments, jnp.asarray(lengths - 1)[:, None], 2)
        nodes = asks.trie.path(jnp.asarray(found.reshape(-1, 1)))
        logps = asks.path_logps(params, states[:, 0, 0], states[:, :, 1:], nodes)[:, 0]
        tokens = (nodes[:, 0] != asks.trie.dead).sum(-1)
        return -(jnp.asarray(advantage.reshape(-1), jnp.float32) * logps.sum(-1) / tokens).mean()

    optimizer = optax.sgd(1.0)
    state = init_state(jax.tree.map(jnp.copy, params), optimizer)
    state, metrics = make_rl_step(asks, optimizer, config, seed=0)(state, batch)
    assert float(metrics["grad_norm"]) > 1e-3
    for (path, old), new, plain in zip(
        jax.tree_util.tree_leaves_with_path(params),
        jax.tree.leaves(state.params),
        jax.tree.leaves(plain_gradient(params)),
        strict=True,
    ):
        np.testing.assert_allclose(old - new, plain, atol=2e-5, err_msg=jax.tree_util.keystr(path))


def test_a_mesh_changes_nothing():
    tokens = jnp.asarray(np.random.default_rng(1).integers(1, 24, (8, 7)), jnp.int32)
    starts = jnp.full((8, 1), 4, jnp.int32)
    policy, params = model(SHALLOW)
    alone = answer_states(policy, params, tokens, None, starts, 3)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        params = place_state(params)
        assert tuple(params["decoder"]["distance_bias"].sharding.spec) == (None, "tensor")
        cut = answer_states(policy, params, tokens, None, starts, 3)
    np.testing.assert_allclose(cut, alone, atol=1e-5)


def test_what_it_cannot_do_is_refused():
    policy, params = model()
    with pytest.raises(ConfigError, match=r"model.num_kv_heads=1 must be model.num_heads=2"):
        init(dataclasses.replace(CONFIG, num_kv_heads=1))
    with pytest.raises(ConfigError, match=r"model.tie_embeddings=False has no effect with model.family='t5'"):
        init(dataclasses.replace(CONFIG, tie_embeddings=False))
    with pytest.raises(ConfigError, match="runs prompts and answers apart"):
        policy.hidden(params, some_prompts().tokens)


def test_an_exported_folder_comes_back_bit_for_bit(exported):
    policy, params = model()
    again, same = load_t5(exported, ModelConfig(init_std=1.0))
    assert again.config == policy.config
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))


def test_another_kind_of_t5_is_named(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "gated")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"feed_forward_proj": "gated-gelu"}))
    with pytest.raises(PretrainedError, match=r"config\.json: feed_forward_proj='gated-gelu' is not supported"):
        load_t5(folder, ModelConfig())


def test_transformers_gives_the_same_probabilities(exported):
    torch = pytest.importorskip("torch")
    from transformers import T5ForConditionalGeneration

    theirs = T5ForConditionalGeneration.from_pretrained(exported, dtype=torch.float32).eval()
    policy, params = model()
    tokens = np.random.default_rng(2).integers(1, 24, (4, 40))
    states = answer_states(policy, params, jnp.asarray(tokens, jnp.int32), None, jnp.full((4, 1), 36, jnp.int32), 3)
    inputs = {
        "input_ids": torch.tensor(tokens[:, :37]),
        "decoder_input_ids": torch.tensor(np.concatenate([np.zeros((4, 1), int), tokens[:, 37:39]], axis=1)),
    }
    with torch.no_grad():
        expected = theirs(**inputs).logits.numpy()
    np.testing.assert_allclose(policy.logits(params, states[:, 0]), expected, atol=1e-4)
