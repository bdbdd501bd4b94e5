"""The quickstart's own command on a slice in MovieLens' layout, killed on the way and started again."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from wpauc_jax.catalog.items import Catalog
from wpauc_jax.config import ModelConfig
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.models import init
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.training.checkpoint import load_best

ROOT = pathlib.Path(__file__).parent.parent
MODEL = {"num_layers": 1, "width": 16, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "ffn_width": 16}
SMALL = {
    "data.max_history": 5,
    "catalog.levels": 2,
    "catalog.codes": 8,
    "sft.steps": 6,
    "sft.evals": 1,
    "sft.batch_size": 8,
    "rl.steps": 12,
    "rl.evals": 2,
    "rl.saves": 4,
    "rl.batch_size": 4,
    "rl.group_size": 4,
    "eval.num_beams": 10,
    **{f"model.{name}": value for name, value in MODEL.items()},
}


@pytest.fixture(scope="module")
def movielens(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("ml-100k")
    rng = np.random.default_rng(0)
    rows = [
        f"{user}\t{item}\t3\t{880_000_000 + 60 * step}"
        for user in range(1, 31)
        for step, item in enumerate(rng.permutation(30)[: rng.integers(12, 25)] + 1)
    ]
    (folder / "u.data").write_text("\n".join(rows) + "\n")
    genres = "|".join("1" if i % 3 == 0 else "0" for i in range(19))
    lines = [f"{item}|Film {item % 7} of {item} (1995)|01-Jan-1995|||{genres}" for item in range(1, 31)]
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


def start(data: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
    settings = SMALL | {"data.path": data}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "wpauc_jax.main", "--config=configs/quickstart.py", f"--workdir={workdir}"),
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome(workdir: pathlib.Path) -> dict:
    """What a run leaves, less what tells the time."""
    lines = read_metrics(workdir / "metrics.jsonl")
    for line in lines:
        del line["time"]
        for rate in ("rows_per_s", "users_per_s"):
            line.pop(rate, None)
    vocab = ModelConfig(**MODEL, vocab_size=_vocab_size(workdir))
    params, best = load_best(workdir / "rl" / "best", init(vocab)[1])
    ranks = {path.stem: Ranks.load(path).rank.tolist() for path in (workdir / "ranks").iterdir()}
    return {"lines": lines, "params": [np.asarray(p).tobytes() for p in jax.tree.leaves(params)], "best": best} | ranks


def _vocab_size(workdir: pathlib.Path) -> int:
    return Catalog.load(workdir / "catalog.npz").vocab_size


@pytest.mark.slow  # tests/test_kills.py kills other commands in the fast suite
def test_killed_in_rl_and_started_again_it_ends_as_if_never_killed(movielens, tmp_path):
    whole = start(movielens, tmp_path / "whole")
    printed = whole.communicate()[0]
    assert whole.returncode == 0, printed

    broken = start(movielens, tmp_path / "broken")
    metrics = tmp_path / "broken" / "metrics.jsonl"
    while broken.poll() is None and not (metrics.exists() and '"stage": "rl", "step": 11' in metrics.read_text()):
        time.sleep(0.1)
    broken.kill()
    assert broken.wait() == -9, "the run was over before it could be killed"

    again = start(movielens, tmp_path / "broken")
    printed_again = again.communicate()[0]
    assert again.returncode == 0, printed_again
    assert "goes on after step" in printed_again
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")

    table = printed.strip().splitlines()
    assert all(any(line.startswith(stage) for line in table) for stage in ("popularity", "sft", "rl"))
    assert "Recall@10" in printed and "30 users" in printed
    assert all((tmp_path / "whole" / name).is_file() for name in ("results.json", "config.json", "plots/stages.png"))
