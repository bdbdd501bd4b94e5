"""Hugging Face checkpoints read in: logits as PyTorch's, and every kind of wrong folder named."""

import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from worlds import forward

from wpauc_jax.models import load_pretrained

GOLDEN = pathlib.Path(__file__).parent / "golden"  # made by benchmarks/golden_models.py
NAMES = ("qwen2", "qwen2_5", "llama3")


@pytest.fixture
def folder(tmp_path):
    """A copy of one checkpoint, in a single file, to be damaged."""
    return single_file("qwen2_5", tmp_path / "model")


def single_file(name, target):
    target.mkdir()
    shutil.copy(GOLDEN / name / "config.json", target)
    tensors = {}
    for path in (GOLDEN / name).glob("*.safetensors"):
        tensors |= load_file(path)
    save_file(tensors, target / "model.safetensors")
    return target


def change(folder, **tensors):
    """Replaces (or with None removes) tensors; `__` stands for a dot."""
    stored = load_file(folder / "model.safetensors")
    for name, value in tensors.items():
        stored.pop(name.replace("__", "."), None)
        if value is not None:
            stored[name.replace("__", ".")] = value
    save_file(stored, folder / "model.safetensors")


def configure(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_pytorchs(name):
    policy, params = load_pretrained(GOLDEN / name)  # in four or five files with an index
    with np.load(GOLDEN / name / "golden.npz") as golden:
        logits = forward(policy, params, jnp.asarray(golden["tokens"], jnp.int32))
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
        assert np.abs(golden["logits"]).max() > 3  # 1e-4 is small beside them


def test_the_golden_models_differ_where_the_families_do():
    configs = {name: load_pretrained(GOLDEN / name)[0].config for name in NAMES}
    assert [configs[name].tie_embeddings for name in NAMES] == [False, True, True]
    assert [configs[name].attention_bias for name in NAMES] == [True, True, False]
    assert [configs[name].rope_scaling.kind for name in NAMES] == ["none", "none", "llama3"]
    assert configs["llama3"].head_dim == 16 != configs["llama3"].width // configs["llama3"].num_heads
