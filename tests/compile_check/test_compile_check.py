"""Compiling for a TPU that is not here; what needs libtpu says so where it is missing."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from wpauc_jax.compile_check import check
from wpauc_jax.compile_check.hlo import Collective
from wpauc_jax.config import (
    CatalogConfig,
    CompileCheckConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    MeshConfig,
    ModelConfig,
    RlConfig,
    SftConfig,
)

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = Config(
    topology="v5e:4x4",
    mesh=MeshConfig(fsdp=4, tensor=2),
    data=DataConfig(max_history=4),
    catalog=CatalogConfig(levels=2, codes=32),
    compile_check=CompileCheckConfig(num_items=300),
    model=ModelConfig(num_layers=2, width=64, num_heads=4, num_kv_heads=2, head_dim=16, ffn_width=128, vocab_size=128),
    sft=SftConfig(batch_size=16),
    rl=RlConfig(batch_size=16, group_size=6),
    eval=EvalConfig(batch_size=16, num_beams=10),
)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'wpauc_jax[tpu]'"
)


COMMAND = ("--config.mode=compile_check", "--config.topology=v5e:2x2", "--config.compile_check.num_items=1000")


def test_a_step_takes_between_its_largest_part_and_their_sum():
    gathered = Collective("all-gather", ((2**20,),), 4e9, 4, 10, "")
    summed = Collective("all-reduce", ((2**20,),), 1e9, 2, 2, "")
    turned = Collective("collective-permute", ((2**20,),), 3e9, 2, 1, "")
    chip = check.Chip(flops=1e12, hbm=2**34, hbm_rate=1e11, link_rate=1e10)
    cost = check.Cost(3.0, 2**33, 8e12, 1e11, (gathered, summed, turned))
    assert check.step_seconds(cost, chip, 4) == {
        "computing": 2.0,  # 8e12 over 4 chips
        "memory": 1.0,
        "communication": pytest.approx((10 * 4e9 * 3 / 4 + 2 * 1e9 / 2 * 2) / 2e10 + 3e9 / 1e10),
    }
    page = check.report(cost, chip, 4)
    assert "8.00 GiB a chip, 50% of its memory" in page
    assert "a step takes 2000.0 to 4900.0 ms" in page
    assert "all-gather over 4: 10 times" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": "v9:4x4"}, "topology='v9:4x4' is unknown; give CHIP:AxB .* v4, v5e, v5p, v6e"),
        ({"topology": "v5e"}, "topology='v5e' is unknown"),
    ],
)
def test_an_unknown_topology_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        check.compile_check(dataclasses.replace(CONFIG, **change), print)


def test_the_stand_in_catalogue_has_the_size_asked_for():
    trie = check.stand_in_trie(CONFIG, CONFIG.model, "constrained")
    assert trie.num_items == 300 and trie.depth == 2
    assert all(rows.min() >= 128 - 64 and rows.max() < 128 for rows in trie.rows)
    with pytest.raises(ConfigError, match=r"compile_check\.num_items=600 is more than half"):
        check.stand_in_trie(
            dataclasses.replace(CONFIG, compile_check=CompileCheckConfig(num_items=600)), CONFIG.model, "vocab"
        )


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_command_says_what_to_install():
    with pytest.raises(ConfigError, match=r"libtpu is needed \(pip install 'wpauc_jax\[tpu\]'\)"):
        check.compile_check(CONFIG, print)


@needs_libtpu
@pytest.mark.slow
def test_small_programs_fit_and_large_ones_do_not():
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "wpauc_jax.main", "--config=configs/quickstart.py", *COMMAND, *arguments],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )

    done = command("--config.model.vocab_size=256")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compiled in") == 3 and done.stdout.splitlines()[-1] == "fits"
    done = command("--config.model.vocab_size=40000000")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "does not fit"
