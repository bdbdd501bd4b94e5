"""Another model family comes in by one module and one entry of FAMILIES: here one of a single recurrent layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.worlds import EOS, TINY, beam_search, brute_force_logps, forward, some_prompts, trie_for
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import ConfigError, LoraConfig, MeshConfig, ModelConfig, OptimConfig
from wpauc_jax.config.fields import choice
from wpauc_jax.decode import Ranker, score_catalogue
from wpauc_jax.models import (
    FAMILIES,
    Family,
    PretrainedError,
    grow_vocabulary,
    init,
    load_pretrained,
    make_policy,
    save_pretrained,
    split_params,
)
from wpauc_jax.models.family import vocabulary_table
from wpauc_jax.runtime import sharding
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a prompt leaves behind: the state at its last token."""

    hidden: jax.Array  # [B, D]
    lengths: jax.Array  # int32[B]


class Recurrent(Family):
    """Each token mixes its embedding into one state by a learned gate."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        metadata = {"kernel_metadata": {"axes": ("embed", "ffn")}, "bias_metadata": {"axes": ("ffn",)}}
        self.embed = vocabulary_table(config, rngs)
        self.mix = nnx.Linear(2 * config.width, 2 * config.width, rngs=rngs, **metadata)

    def step(self, state: jax.Array, token: jax.Array) -> jax.Array:
        """[..., D] and int32[...] -> [..., D]."""
        gate, new = jnp.split(self.mix(jnp.concatenate([state, self.embed[...][token]], axis=-1)), 2, axis=-1)
        return state + jax.nn.sigmoid(gate) * (jnp.tanh(new) - state)

    def run(self, state: jax.Array, tokens: jax.Array, begins: jax.Array) -> jax.Array:
        """The states [..., S, D] after each of int32[..., S]; the state before is forgotten where a sequence begins."""

        def body(state, inputs):
            state = self.step(jnp.where(inputs[1][..., None], 0.0, state), inputs[0])
            return state, state

        _, states = jax.lax.scan(body, state, (jnp.moveaxis(tokens, -1, 0), jnp.moveaxis(begins, -1, 0)))
        return jnp.moveaxis(states, 0, -2)

    def hidden(self, tokens, segments):
        segments = jnp.ones_like(tokens) if segments is None else segments
        zeros = jnp.zeros((len(tokens), self.embed.shape[1]))
        return self.run(zeros, tokens, jnp.diff(segments, axis=1, prepend=-1) != 0)

    def prefill(self, prompts):
        states = self.hidden(prompts.tokens, None)
        return State(states[jnp.arange(len(states)), prompts.lengths - 1], prompts.lengths)

    def extend(self, cache, tokens, past):
        state = jnp.broadcast_to(cache.hidden[:, None], (*tokens.shape[:2], cache.hidden.shape[-1]))
        states = self.run(state if past is None else past[0], tokens, jnp.zeros(tokens.shape, bool))
        return states, states[None, :, :, -1]

    def logits(self, hidden, rows):
        table = self.embed[...] if rows is None else self.embed[...][rows]
        return jnp.einsum("...d,rd->...r", hidden, table)


@dataclasses.dataclass(frozen=True)
class Settings(ModelConfig, section="model."):
    """The model's settings where `model.family` has one more name."""

    family: str = choice("recurrent", "decoder")


CONFIG = Settings(vocab_size=TINY.vocab_size, width=16, init_std=0.5)
ITEMS = [(3,), (4, 5), (4, 6), (3, 7, 8), (5, 5), (6,), (7, 3), (7, 3, 4)]


@pytest.fixture(autouse=True)
def family(monkeypatch):
    monkeypatch.setitem(FAMILIES, "recurrent", Recurrent)


@pytest.fixture
def model():
    return init(CONFIG, 0)


def test_every_name_of_the_setting_has_a_family():
    (field,) = (field for field in dataclasses.fields(ModelConfig) if field.name == "family")
    assert set(field.metadata["choices"]) == FAMILIES.keys() - {"recurrent"}
    with pytest.raises(ConfigError, match=r"model.family='transformer' is unknown; choose one of decoder"):
        ModelConfig(family="transformer")


def test_cached_candidates_equal_the_full_forward(model):
    policy, params = model
    prompts = some_prompts()
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 24, (3, 4, 3)), jnp.int32)
    cache = policy.prefill(params, prompts)
    first, past = policy.extend(params, cache, tokens[..., :2])
    second, _ = policy.extend(params, cache, tokens[..., 2:], past)
    cached = policy.logits(params, jnp.concatenate([first, second], axis=2))
    for b, length in enumerate(np.asarray(prompts.lengths)):
        prompt = jnp.repeat(prompts.tokens[b : b + 1, :length], 4, axis=0)
        full = forward(policy, params, jnp.concatenate([prompt, tokens[b]], axis=1))
        np.testing.assert_allclose(cached[b], full[:, length:], atol=1e-5)


@pytest.mark.parametrize("scoring", ["constrained", "vocab"])
def test_search_and_exact_scores_are_brute_forces(model, scoring):
    policy, params = model
    prompts, trie = some_prompts(), trie_for(ITEMS, scoring)
    truth = brute_force_logps(policy, params, prompts, ITEMS, scoring)
    found = beam_search(policy, params, prompts, trie, num_beams=len(ITEMS), scoring=scoring)
    np.testing.assert_array_equal(found.items, np.argsort(-truth, axis=1))
    np.testing.assert_allclose(score_catalogue(policy, params, prompts, trie, scoring=scoring), truth, atol=1e-4)


def test_a_step_of_sft_learns(model):
    policy, params = model
    trie = trie_for(ITEMS, "constrained")
    optimizer = make_optimizer(OptimConfig(learning_rate=3e-2, schedule="constant", warmup=0), 20)
    step = make_sft_step(Ranker(policy, trie), optimizer)
    tokens = jnp.asarray([[1, *ITEMS[3], EOS, *ITEMS[1], EOS], [2, *ITEMS[3], EOS, *ITEMS[1], EOS]], jnp.int32)
    items, starts = jnp.asarray([[3, 1]] * 2), jnp.asarray([[0, 4]] * 2)
    batch = SftBatch(tokens, jnp.ones_like(tokens), items, starts)
    state, losses = init_state(params, optimizer), []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 < 1 < losses[0]
    assert state.opt_state[1][0].mu.axes == state.params.axes == policy.axes


def test_its_parameters_lie_where_their_axes_say():
    with jax.set_mesh(sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        policy, params = init(CONFIG, 0)
        state = init_state(params, optax.adam(1e-3), reference=True)
        frozen = split_params(*init(dataclasses.replace(CONFIG, freeze=True)), first_row=20, num_rows=4)
    for tree in (params, state.opt_state[0].nu, state.ref_params):
        assert tuple(tree["embed"].sharding.spec) == ("tensor", "fsdp")
        assert tuple(tree["mix"]["kernel"].sharding.spec) == ("fsdp", "tensor")
    assert policy.gathered(params) is params
    assert dict(frozen[0].axes) == {("embed_rows",): ("new_rows", "width")}


def test_its_table_grows_with_the_vocabulary(model):
    policy, params = grow_vocabulary(*model, 24, [[3, 5], []])
    assert policy.config.vocab_size == 26 and params["mix"] is model[1]["mix"]
    np.testing.assert_allclose(params["embed"][24], (params["embed"][3] + params["embed"][5]) / 2, atol=1e-6)


def test_what_a_family_does_not_have_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match=r"model.lora.rank=2: model.family='recurrent' takes no adapter"):
        make_policy(dataclasses.replace(CONFIG, lora=LoraConfig(rank=2)))
    with pytest.raises(
        ConfigError, match=r"model.pretrained='somewhere' holds a decoder, not model.family='recurrent'"
    ):
        load_pretrained("somewhere", settings=CONFIG)
    with pytest.raises(PretrainedError, match=r"model.family='recurrent' has no Hugging Face folder"):
        save_pretrained(tmp_path / "model", *model)


@pytest.mark.parametrize("axes", [(), ("embed",), ("embed", "depth")])
def test_a_parameter_without_its_axes_is_named(monkeypatch, axes):
    class Forgetful(Recurrent):
        def __init__(self, config, rngs):
            super().__init__(config, rngs)
            self.more = nnx.Param(jnp.ones((3, 4)), **({"axes": axes} if axes else {}))

    monkeypatch.setitem(FAMILIES, "recurrent", Forgetful)
    with pytest.raises(KeyError, match=r"more \(3, 4\) with axes=.* has no logical axes: say them where"):
        make_policy(CONFIG)
