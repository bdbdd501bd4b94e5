"""config.json and the index of a checkpoint come from anywhere: each is a model or one line that says what is wrong."""

import dataclasses
import json
import math
import pathlib
import shutil
import time

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, GenerationConfig

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models import PretrainedError, load_pretrained, make_policy
from wpauc_jax.models.hf import is_recomputed
from wpauc_jax.models.hf_config import generation_config, hf_config, model_config, read_config, read_json

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SMALL = {
    "model_type": "llama",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 40,
    "vocab_size": 50,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}

numbers = st.one_of(
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.sampled_from([0, -1, 7, 3_000, 2**31, 2**63, 1e300, math.nan, math.inf]),
)
plain = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8))
anything = st.recursive(
    plain, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3))
)
NAMES = (*SMALL, "head_dim", "rms_norm_eps", "rope_theta", "initializer_range", "tie_word_embeddings", "layer_types")
ROPE_NAMES = (*LLAMA3, "rope_theta", "type", "original_max_position_embeddings", "partial_rotary_factor")
ropes = st.dictionaries(st.sampled_from(ROPE_NAMES), plain, max_size=5).map(lambda changes: LLAMA3 | changes)
changes = st.fixed_dictionaries(
    {},
    optional={name: anything for name in NAMES}
    | {"max_position_embeddings": anything, "rope_scaling": anything | ropes, "rope_parameters": anything | ropes},
)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("config")


def outcome(folder, content):
    """The model that a config.json describes, or the one line that refuses it."""
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    try:
        return model_config(read_config(folder), ModelConfig())
    except (PretrainedError, ConfigError) as error:
        assert "\n" not in str(error) and "config.json" in str(error)
        assert len(str(error)) < 250
        return None


def assert_a_model(config):
    sizes = (
        config.num_layers,
        config.width,
        config.num_heads,
        config.num_kv_heads,
        config.ffn_width,
        config.vocab_size,
    )
    assert all(type(size) is int and 1 <= size <= 2**24 for size in sizes)
    assert config.num_layers <= 1_000 and config.num_heads % config.num_kv_heads == 0 and config.head_dim % 2 == 0
    scaling = config.rope_scaling
    numbers = (config.norm_eps, config.rope_theta, config.init_std, scaling.factor, scaling.low_freq_factor)
    assert all(type(number) is float and math.isfinite(number) for number in numbers)
    assert type(config.tie_embeddings) is bool


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything | st.text(max_size=20).map(lambda text: "{" + text))
@example([{"model_type": "llama"}])
@example({"model_type": "\ud800"})
def test_any_json_is_a_model_or_one_line(one_folder, content):
    assert outcome(one_folder, content) is None


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes, st.sampled_from(["llama", "qwen2"]))
@example({"hidden_size": 25}, "llama")
@example({"num_hidden_layers": 3_000}, "llama")
@example({"num_attention_heads": 0}, "qwen2")
@example({"num_key_value_heads": 4}, "qwen2")
@example({"rms_norm_eps": math.nan}, "llama")
@example({"hidden_size": "24"}, "llama")
@example({"num_hidden_layers": True}, "llama")
@example({"rope_parameters": LLAMA3, "max_position_embeddings": 64}, "llama")
def test_any_change_of_a_good_config_is_a_model_or_one_line(one_folder, change, family):
    found = outcome(one_folder, SMALL | {"model_type": family} | change)
    if found is not None:
        assert_a_model(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "24"}, r"hidden_size='24' must be a whole number from 1 to"),
        ({"hidden_size": 24.0}, r"hidden_size=24.0 must be a whole number"),
        ({"hidden_size": 26}, r"hidden_size=26 is not a multiple of num_attention_heads=6"),
        ({"num_attention_heads": 0}, r"num_attention_heads=0 must be a whole number"),
        ({"num_key_value_heads": 4}, r"num_attention_heads=6 is not a multiple of num_key_value_heads=4"),
        ({"num_hidden_layers": 3_000}, r"num_hidden_layers=3000 must be a whole number from 1 to 1000"),
        ({"vocab_size": -50}, r"vocab_size=-50 must be a whole number"),
        ({"intermediate_size": 10**30}, r"intermediate_size=10+ must be a whole number"),
        ({"head_dim": 5}, r"a head of 5 dimensions must be even"),
        ({"rms_norm_eps": math.nan}, r"rms_norm_eps=nan must be a number from 0 to 1"),
        ({"rope_theta": math.inf}, r"rope_theta=inf must be a number from 1 to"),
        ({"tie_word_embeddings": "yes"}, r"tie_word_embeddings='yes' must be true or false"),
        ({"rope_scaling": [1]}, r"rope_scaling=\[1\] must be an object"),
        ({"rope_scaling": LLAMA3 | {"factor": "8"}, "max_position_embeddings": 9}, r"factor='8' must be a number"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 3}, "max_position_embeddings": 9}, r"low_freq.* must be below"),
        ({"rope_scaling": LLAMA3}, r"needs original_max_position_embeddings"),
        ({"rope_scaling": LLAMA3, "rope_parameters": {"rope_theta": 5.0}}, r"say different things"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, r"full_attention=.* is not supported"),
        ({"is_causal": False}, r"is_causal=False is not supported"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0.5 is not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types=.* is not supported"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config=.* is not supported"),
    ],
)
def test_what_is_no_model_is_named(one_folder, change, message):
    (one_folder / "config.json").write_text(json.dumps(SMALL | change))
    with pytest.raises(PretrainedError, match=r"config\.json: .*" + message):
        model_config(read_config(one_folder), ModelConfig())


@pytest.mark.parametrize("content", ["[1]", "3", '"llama"', "null", "", "[" * 100_000, '{"model_type": ["llama"]}'])
def test_a_file_that_holds_no_settings_is_named(one_folder, content):
    assert outcome(one_folder, content) is None


@pytest.mark.parametrize(
    "stored",
    [
        {name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
        SMALL | {"head_dim": 10, "rope_theta": 5e5, "rope_scaling": None, "rms_norm_eps": 1e-5},
        SMALL | {"rope_theta": 2e4, "rope_scaling": LLAMA3, "max_position_embeddings": 96},
        SMALL | {"rope_parameters": {"type": "default", "rope_theta": 3e4}, "rope_theta": 7e4},
        SMALL | {"model_type": "qwen2", "tie_word_embeddings": True, "initializer_range": 0.1},
        {key: value for key, value in SMALL.items() if "heads" not in key}
        | {"model_type": "qwen2", "num_attention_heads": 32, "hidden_size": 64},
        json.loads((GOLDEN / "llama3" / "config.json").read_text()),
    ],
)
def test_what_a_file_leaves_out_is_what_transformers_takes_it_to_be(one_folder, stored):
    ours = outcome(one_folder, stored)
    theirs = AutoConfig.from_pretrained(one_folder, trust_remote_code=False)
    rope = theirs.rope_parameters
    found = (ours.num_kv_heads, ours.head_dim, ours.norm_eps, ours.rope_theta, ours.tie_embeddings, ours.init_std)
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    wanted = (theirs.num_key_value_heads, head_dim, theirs.rms_norm_eps, rope["rope_theta"])
    assert found == (*wanted, theirs.tie_word_embeddings, theirs.initializer_range)
    assert (ours.rope_scaling.kind == "llama3") == (rope["rope_type"] == "llama3")
    if rope["rope_type"] == "llama3":
        assert ours.rope_scaling.original_length == rope["original_max_position_embeddings"]


def test_a_model_that_a_family_cannot_say_is_named():
    odd = ModelConfig(width=40, num_heads=3, num_kv_heads=3, head_dim=8, attention_bias=False, vocab_size=9)
    with pytest.raises(PretrainedError, match=r"this model has no config.json as a LlamaForCausalLM: .*multiple"):
        hf_config(odd, dtype="float32")


def generation_of(tmp_path, **stored):
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    config = hf_config(ModelConfig(vocab_size=9), dtype="float32")
    generation_config(config, tmp_path, {"num_beams": 4}).save_pretrained(tmp_path / "out")
    return json.loads((tmp_path / "out" / "generation_config.json").read_text())


def test_settings_of_generation_are_the_special_tokens_and_what_is_asked_for(tmp_path):
    sampling = {"do_sample": True, "top_k": 20, "repetition_penalty": 1.1, "forced_eos_token_id": 3}
    written = generation_of(tmp_path, temperature=0.7, top_p=0.8, eos_token_id=[4, 5], pad_token_id=-1, **sampling)
    assert written.pop("transformers_version")
    assert {name: value for name, value in written.items() if value not in (None, False)} == {
        "eos_token_id": [4, 5],
        "num_beams": 4,
    }


def test_settings_of_generation_that_cannot_be_saved_do_not_matter(tmp_path):
    stored = {"temperature": 0.3, "top_p": 0.6}
    with pytest.raises(ValueError, match="temperature"):
        GenerationConfig(**stored).save_pretrained(tmp_path / "theirs")  # what used to end an export
    assert "temperature" not in generation_of(tmp_path, **stored)


@pytest.mark.parametrize("tokens", ["2", 2.0, True, [2, "3"], 2**40])
def test_a_special_token_is_a_number(tmp_path, tokens):
    with pytest.raises(PretrainedError, match=r"generation_config.json: eos_token_id=.* must be the number of a token"):
        generation_of(tmp_path, eos_token_id=tokens)


@pytest.fixture
def folder(tmp_path):
    """A copy of a checkpoint in several files with an index."""
    return pathlib.Path(shutil.copytree(GOLDEN / "qwen2_5", tmp_path / "model"))


def test_layers_that_are_not_stored_are_named_before_they_are_made(folder):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"num_hidden_layers": 999, "layer_types": None}))
    begin = time.perf_counter()
    with pytest.raises(PretrainedError, match=r"num_hidden_layers=999, but the weights have 2 layers"):
        load_pretrained(folder)
    assert time.perf_counter() - begin < 2  # such a model takes a minute to trace
    (folder / "config.json").write_text(json.dumps(stored | {"vocab_size": 2**24}))
    with pytest.raises(PretrainedError, match=r"vocab_size=16777216 and hidden_size=32, but .* is \[48, 32\]"):
        load_pretrained(folder)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything | st.fixed_dictionaries({"weight_map": anything | st.dictionaries(st.text(max_size=5), plain)}))
def test_any_index_is_refused_in_one_line(one_folder, content):
    target = one_folder / "indexed"
    if not target.exists():
        shutil.copytree(GOLDEN / "qwen2_5", target)
    (target / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(PretrainedError) as error:
        load_pretrained(target)
    assert "\n" not in str(error.value) and "index.json" in str(error.value)


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "sub/model.safetensors", "..", 3, None])
def test_an_index_leads_nowhere_else(folder, name):
    shutil.copy(folder / "model-00001-of-00004.safetensors", folder.parent / "model.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PretrainedError, match=r"index.json: weight_map says 'model.norm.weight' is in .*beside it"):
        load_pretrained(folder)


def test_files_may_be_links_as_in_the_hubs_cache(folder):
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
        path.symlink_to(folder.parent / path.name)
    assert load_pretrained(folder)[0].config.width == 32


@pytest.mark.parametrize("number", [1, 3])
def test_the_index_says_which_of_two_files_has_a_tensor(folder, number):
    for other in (1, 2, 3, 4):
        path = folder / f"model-0000{other}-of-00004.safetensors"
        save_file(load_file(path) | {"model.norm.weight": np.full(32, other, np.float32)}, path)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight"] = f"model-0000{number}-of-00004.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(load_pretrained(folder)[1]["norm"]["scale"].tolist()) == {number}
    index["weight_map"]["model.norm.bias"] = path.name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PretrainedError, match=r"index.json: .* has no tensor 'model.norm.bias'"):
        load_pretrained(folder)


def test_two_checkpoints_in_one_folder_are_refused(folder):
    shutil.copy(folder / "model-00001-of-00004.safetensors", folder / "model.safetensors")
    with pytest.raises(
        PretrainedError, match=r"holds model.safetensors and model.safetensors.index.json of other files"
    ):
        load_pretrained(folder)


RECOMPUTED = [
    "model.layers.1.self_attn.rotary_emb.inv_freq",
    "model.rotary_emb.inv_freq",
    "model.rotary_emb.original_inv_freq",
    "rotary_emb.cos_cached",
    "model.layers.0.self_attn.masked_bias",
    "model.layers.0.attn.bias",
    "model.embeddings.position_ids",
]


def test_tables_that_are_computed_anew_are_passed_over(folder):
    path = folder / "model-00004-of-00004.safetensors"
    save_file(load_file(path) | {name: np.full(4, 7, np.int64) for name in RECOMPUTED}, path)
    params = load_pretrained(folder)[1]
    jax.tree.map(np.testing.assert_array_equal, params, load_pretrained(GOLDEN / "qwen2_5")[1])


@pytest.mark.parametrize("name", ["self_attn.q_proj.bias", "self_attn.o_proj.bias", "mlp.up_proj.weight", "inv_freq"])
def test_weights_are_not_passed_over(name):
    assert not is_recomputed(f"model.layers.0.{name}")


def test_a_config_is_made_into_a_model_as_it_says(one_folder):
    config = outcome(one_folder, SMALL)
    _, shapes = make_policy(config)
    assert shapes["layers"]["1"]["attention"]["k"]["kernel"].shape == (24, 12)
    assert config == dataclasses.replace(config, width=24, num_heads=6, num_kv_heads=3, head_dim=4)


def test_a_json_file_of_two_bytes_that_are_no_text_is_named(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(PretrainedError, match=r"config.json cannot be read"):
        read_json(tmp_path / "config.json")
