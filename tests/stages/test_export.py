"""Models written as Hugging Face folders: what comes back, and that PyTorch computes the same where it is present."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import GenerationConfig

from tests.worlds import TINY, forward, tiny_policy
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.config import Config, EvalConfig, LoraConfig, RopeScalingConfig
from wpauc_jax.models import add_adapter, load_pretrained, save_pretrained
from wpauc_jax.stages.export import search_settings

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SHAPES = {
    "qwen2": dataclasses.replace(TINY, tie_embeddings=False),
    "llama3": dataclasses.replace(
        TINY,
        attention_bias=False,
        rope_theta=5e5,
        rope_scaling=RopeScalingConfig(kind="llama3", original_length=16),
    ),
}
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed; tests/golden holds its answers"
)


def stored(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def assert_same_bits(one, other):
    assert {name: (leaf.dtype, leaf.shape) for name, leaf in one.items()} == {
        name: (leaf.dtype, leaf.shape) for name, leaf in other.items()
    }
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5", "llama3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_comes_back_bit_for_bit(name, dtype, tmp_path):
    source = tmp_path / "source"  # the golden model in the stored type
    save_pretrained(source, *load_pretrained(GOLDEN / name, dtype=dtype), source=GOLDEN / name)
    for load_as in (None, "float32"):
        copy = tmp_path / f"copy_{load_as}"
        policy, params = load_pretrained(source, dtype=load_as)
        save_pretrained(copy, policy, params, dtype=dtype, source=source, file_bytes=20_000)
        assert_same_bits(stored(copy), stored(source))
        for file in ("config.json", "generation_config.json"):
            assert json.loads((copy / file).read_text()) == json.loads((source / file).read_text())
        assert len(list(copy.glob("model-*.safetensors"))) > 1
    if dtype == "float32":
        assert_same_bits(stored(source), stored(GOLDEN / name))


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_of_ones_own_comes_back(name, tmp_path):
    policy, params = tiny_policy(SHAPES[name])
    save_pretrained(tmp_path / "model", policy, params)
    again, same = load_pretrained(tmp_path / "model", settings=TINY)
    assert again.config == SHAPES[name]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()) and a.dtype == b.dtype, params, same))


def test_what_the_model_does_not_know_of_is_carried_on(tmp_path):
    source = tmp_path / "source"
    policy, params = tiny_policy(SHAPES["llama3"])
    save_pretrained(source, policy, params)
    for file, settings in {
        "config.json": {"max_position_embeddings": 77, "eos_token_id": 5},
        "generation_config.json": {"eos_token_id": [5, 6], "do_sample": True, "temperature": 0.5, "top_k": 3},
    }.items():
        path = source / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    save_pretrained(tmp_path / "copy", policy, params, source=source, generation={"num_beams": 3})
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert (config["max_position_embeddings"], config["eos_token_id"]) == (77, 5)
    generation = json.loads((tmp_path / "copy" / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["num_beams"]) == ([5, 6], 3)
    assert not {"do_sample", "temperature", "top_k"} & {name for name, value in generation.items() if value is not None}


def test_an_adapter_is_merged(tmp_path):
    policy, params = add_adapter(*tiny_policy(), LoraConfig(rank=2))
    params["layers"]["1"]["mlp"]["up"]["lora"]["lora_b"] += 0.1
    save_pretrained(tmp_path / "model", policy, params)
    merged = load_pretrained(tmp_path / "model", settings=TINY)
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
    np.testing.assert_allclose(forward(*merged, tokens), forward(policy, params, tokens), atol=1e-5)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail(folder):
        assert (folder / "model.safetensors").exists()
        raise RuntimeError("the tokenizer cannot be written")

    with pytest.raises(RuntimeError, match="cannot be written"):
        save_pretrained(tmp_path / "model", *tiny_policy(), add_files=fail)
    assert not list(tmp_path.iterdir())
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="model exists; name another folder"):
        save_pretrained(tmp_path / "model", *tiny_policy())


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_follow_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        save_pretrained(tmp_path / "model", *tiny_policy(), add_files=lambda folder: (folder / "more").mkdir(0o700))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir() if path.is_file()}
    assert "model.safetensors" in modes and set(modes.values()) == {0o666 & ~mask}
    assert not list((tmp_path / "model").glob(".*"))


@pytest.mark.parametrize(("scoring", "renormalize"), [("constrained", True), ("vocab", False)])
def test_the_settings_of_generation_are_those_of_the_search(scoring, renormalize, tmp_path):
    config = Config(scoring=scoring, eval=EvalConfig(num_beams=12))
    open_ended = catalog_from_codes(np.array([[0, 0], [0, 1], [0, 1]]), (1, 2))
    ended = catalog_from_codes(np.array([[0, 0], [0, 1]]), (1, 2), first_code=40, end=7)
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(GOLDEN / "llama3" / "config.json", source)
    sampling = {"do_sample": True, "temperature": 0.2, "num_return_sequences": 4, "eos_token_id": [2, 3]}
    (source / "generation_config.json").write_text(json.dumps(sampling))
    for name, catalog in (("open", open_ended), ("ended", ended)):
        settings = search_settings(config, catalog)
        save_pretrained(tmp_path / name, *tiny_policy(), source=source, generation=settings)
        found = GenerationConfig.from_pretrained(tmp_path / name)
        assert (found.do_sample, found.temperature, found.num_return_sequences) == (False, None, None)
        assert (found.num_beams, found.max_new_tokens, found.length_penalty) == (12, 3, 0.0)
        assert bool(found.renormalize_logits) is renormalize
        assert found.eos_token_id == (0 if name == "open" else 7)


@needs_torch
@pytest.mark.parametrize("name", ["qwen2", "qwen2_5", "llama3"])
def test_pytorch_computes_the_same_both_ways(name, tmp_path):
    import torch
    import transformers

    from benchmarks.golden_models import logits, tiny_model, tokens

    model = tiny_model(name)
    theirs = tmp_path / "theirs"
    model.save_pretrained(theirs)
    policy, params = load_pretrained(theirs)
    np.testing.assert_allclose(forward(policy, params, jnp.asarray(tokens(), jnp.int32)), logits(model), atol=1e-4)
    # The other way with numbers of our own, so that nothing can come from the first folder.
    params = jax.tree.map(lambda leaf: leaf * 1.1, params)
    save_pretrained(tmp_path / "ours", policy, params)
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    ours = forward(policy, params, jnp.asarray(tokens(), jnp.int32))
    np.testing.assert_allclose(ours, logits(loaded), atol=1e-4)
