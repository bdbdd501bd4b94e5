"""Hugging Face checkpoints read in: logits as PyTorch's, and every kind of wrong folder named."""

import json
import pathlib
import shutil
import statistics
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.worlds import forward
from wpauc_jax.config import ConfigError, MeshConfig, ModelConfig, RopeScalingConfig
from wpauc_jax.models import PretrainedError, init, load_pretrained, pretrained, save_pretrained
from wpauc_jax.runtime import sharding
from wpauc_jax.runtime.parameters import Parameters

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"  # made by benchmarks/golden_models.py
NAMES = ("qwen2", "qwen2_5", "llama3")
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    """A copy of one checkpoint, in a single file, to be changed."""
    target = tmp_path / "model"
    target.mkdir()
    shutil.copy(GOLDEN / "qwen2_5" / "config.json", target)
    tensors = {}
    for path in (GOLDEN / "qwen2_5").glob("*.safetensors"):
        tensors |= load_file(path)
    save_file(tensors, target / "model.safetensors")
    return target


def change(folder, tensors):
    """Replaces tensors; None removes one."""
    stored = load_file(folder / "model.safetensors") | tensors
    save_file({name: value for name, value in stored.items() if value is not None}, folder / "model.safetensors")


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


def test_how_to_compute_is_the_callers_choice():
    settings = ModelConfig(dtype="bfloat16", remat="layer", num_layers=7)
    policy, params = load_pretrained(GOLDEN / "qwen2_5", dtype="bfloat16", settings=settings)
    assert (policy.config.dtype, policy.config.remat, policy.config.num_layers) == ("bfloat16", "layer", 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


def test_stored_types_are_kept_and_the_wider_wins_within_a_stack(folder):
    stored = load_file(folder / "model.safetensors")
    half = {name: value.astype(ml_dtypes.bfloat16) for name, value in stored.items() if "norm" not in name}
    change(folder, half | {UP: stored[UP]})
    params = load_pretrained(folder)[1]
    stacked = load_pretrained(folder, settings=ModelConfig(layers="scanned"))[1]
    first, second = (params["layers"][layer]["mlp"]["up"]["kernel"] for layer in "01")
    up, down = (stacked["layers"]["mlp"][name]["kernel"] for name in ("up", "down"))
    assert params["embed"].dtype == first.dtype == down.dtype == jnp.bfloat16
    assert params["norm"]["scale"].dtype == second.dtype == up.dtype == jnp.float32
    np.testing.assert_array_equal(params["embed"], half["model.embed_tokens.weight"])
    np.testing.assert_array_equal(second, stored[UP].T)
    np.testing.assert_array_equal(up, np.stack([first, second]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("cuts", "layers"), [((2, 2, 2), "unrolled"), ((1, 4, 2), "scanned"), ((8, 1, 1), "unrolled")])
def test_on_a_mesh_the_same_parameters_lie_where_they_belong(name, cuts, layers):
    settings = ModelConfig(layers=layers)
    whole = load_pretrained(GOLDEN / name, settings=settings)[1]
    with jax.set_mesh(sharding.make_mesh(MeshConfig(*cuts))):
        params, wanted = load_pretrained(GOLDEN / name, settings=settings)[1], sharding.state_shardings(whole)
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf, its: leaf.sharding == its, params, wanted)))
    kernels = params["layers"] if layers == "scanned" else params["layers"]["1"]
    sizes = {shard.data.size for shard in kernels["mlp"]["up"]["kernel"].addressable_shards}
    assert sizes == {(2 if layers == "scanned" else 1) * 32 * 40 // (cuts[1] * cuts[2])}


def test_a_mesh_that_does_not_divide_the_model_is_refused():
    mesh = sharding.make_mesh(MeshConfig(tensor=8))
    with jax.set_mesh(mesh), pytest.raises(ConfigError, match=r"model.num_heads=4 does not divide into 8 parts"):
        load_pretrained(GOLDEN / "qwen2_5")


def test_every_wrong_weight_is_named(folder):
    change(
        folder,
        {
            UP: None,
            "model.norm.weight": np.ones(31, np.float32),
            "model.layers.0.self_attn.o_proj.bias": np.ones(32, np.float32),
            "model.layers.0.input_layernorm.weight": np.ones(32, np.int8),
        },
    )
    with pytest.raises(PretrainedError, match=r"holds other weights") as error:
        load_pretrained(folder)
    assert str(error.value).splitlines()[1:] == [
        f"  {UP}: missing, wanted as [40, 32]",
        "  model.layers.0.self_attn.o_proj.bias: unexpected, found as [32]",
        "  model.norm.weight: [31], wanted as [32]",
        "  model.layers.0.input_layernorm.weight: stored as I8; F32, BF16, F16 can be read",
    ]


def test_a_tied_head_may_be_stored_as_well_if_it_is_the_embedding(folder):
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change(folder, {"lm_head.weight": table})
    assert "head" not in load_pretrained(folder)[1]
    table[-1, -1] += 1
    change(folder, {"lm_head.weight": table})
    with pytest.raises(PretrainedError, match=r"lm_head.weight: unexpected, found as \[48, 32\]"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gemma"}, r"config.json: model_type='gemma' is not supported; qwen2 and llama are"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu' is not supported"),
        ({"use_sliding_window": True}, r"use_sliding_window=True is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, r"rope_type='yarn'"),
        ({"model_type": "llama", "attention_bias": True}, r"attention_bias=True is not supported"),
        ({"model_type": "llama", "mlp_bias": True}, r"mlp_bias=True is not supported"),
    ],
)
def test_another_architecture_is_refused(folder, settings, message):
    configure(folder, **settings)
    with pytest.raises(PretrainedError, match=message):
        load_pretrained(folder)


def test_a_damaged_folder_says_what_is_wrong(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PretrainedError, match="holds no whole safetensors checkpoint"):
        load_pretrained(folder)
    path.unlink()
    with pytest.raises(PretrainedError, match="holds no whole safetensors checkpoint"):
        load_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "qwen2", "vocab_size": 48}')
    with pytest.raises(PretrainedError, match=r"config.json: hidden_size, num_hidden_layers, .* missing"):
        load_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(PretrainedError, match=r"config.json cannot be read"):
        load_pretrained(folder)


def test_older_files_say_rope_in_their_own_fields(folder):
    stored = json.loads((folder / "config.json").read_text())
    del stored["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(stored | {"rope_theta": 5e5, "torch_dtype": "float32"}))
    assert load_pretrained(folder)[0].config.rope_theta == 5e5


def test_what_is_no_folder_is_asked_of_the_hub(monkeypatch):
    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, "*.safetensors" in allow_patterns))
        return GOLDEN / "qwen2_5"

    monkeypatch.setattr(pretrained, "snapshot_download", snapshot)
    assert load_pretrained("somebody/model")[0].config.width == 32
    assert asked == [("somebody/model", True)]
    monkeypatch.undo()
    with pytest.raises(PretrainedError, match=r"model.pretrained='no/such/folder' is neither a folder nor a model"):
        load_pretrained("no/such/folder")


def test_llama3_frequencies_need_an_order():
    with pytest.raises(ConfigError, match=r"low_freq_factor=4.0 must be below model.rope_scaling.high_freq_factor=4.0"):
        RopeScalingConfig(kind="llama3", low_freq_factor=4.0)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder whose tensors are large beside all else that loading allocates, and their sizes."""
    target = tmp_path_factory.mktemp("large") / "model"
    save_pretrained(target, *init(ModelConfig(vocab_size=4000, num_layers=8, width=512, ffn_width=2048, head_dim=64)))
    sizes = [tensor.nbytes for tensor in load_file(target / "model.safetensors").values()]
    assert sum(sizes) > 10 * max(sizes)
    return target, max(sizes)


def allocated(folder):
    """The most bytes that the host has allocated at one time, apart from the devices' memory, to load the folder.

    The median of three loads: a thread of XLA's that the system lets wait gives its copy back late.
    """
    load_pretrained(folder, dtype="bfloat16")  # compiled
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        load_pretrained(folder, dtype="bfloat16")  # another type, or the CPU would keep the host's own array
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return statistics.median(peaks)


def test_the_host_holds_one_tensor_at_a_time(large):
    folder, largest = large
    assert 0.9 * largest < allocated(folder) < 1.3 * largest


def test_the_host_holds_one_part_for_all_devices_that_share_it(large):
    folder, largest = large
    with jax.set_mesh(sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        assert allocated(folder) < 1.3 * largest
    with jax.set_mesh(sharding.make_mesh(MeshConfig(data=8))):
        assert allocated(folder) < 1.3 * largest


class Watched:
    """A stored tensor that notes the shape of every part that is copied."""

    def __init__(self, tensor, copied):
        self.tensor, self.copied = tensor, copied

    def get_slice(self, _):
        return self

    def get_shape(self):
        return self.tensor.shape

    def __getitem__(self, cuts):
        self.copied.append(self.tensor[cuts].shape)
        return self.tensor[cuts]


@pytest.mark.parametrize(("cuts", "parts"), [((1, 4, 2), 8), ((2, 2, 2), 4), ((8, 1, 1), 1)])
def test_a_tensor_is_copied_part_by_part_and_each_part_once(cuts, parts):
    """So a process copies what its devices hold, and no more."""
    copied, tensor = [], np.arange(48 * 32).reshape(48, 32)
    with jax.set_mesh(sharding.make_mesh(MeshConfig(*cuts))), pretrained._Tensors(GOLDEN / "qwen2_5") as stored:
        stored._of["it"] = Watched(tensor, copied)
        table = Parameters({"table": tensor}, {("table",): ("vocab", "embed")})
        found = stored.read("it", sharding.state_shardings(table)["table"])
    assert copied == [(48 // cuts[2], 32 // cuts[1])] * parts
    np.testing.assert_array_equal(found, tensor)
