"""The example and the figures: they run, and say what the documentation says they do."""

import pathlib
import re
import runpy

import jax
import matplotlib.image
import numpy as np
import pytest

from benchmarks import gradient_share, theory
from wpauc_jax.config import RlConfig
from wpauc_jax.objectives import recall_at_k

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tawin_in_flax.py"


def test_example_is_short_and_runs(capsys):
    assert len(EXAMPLE.read_text().splitlines()) < 100
    runpy.run_path(str(EXAMPLE))["main"](anchors=(2,), start_steps=3, steps=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["recall", "start", "TAWin", "exact", "soft"]
    shares = np.array([re.findall(r"0\.\d{3}", line) for line in lines[1:]], float)
    assert shares.shape == (4, 4) and np.all((shares > 0) & (shares < 1))


def test_example_measures_expected_recall():
    """Its closed form against the library's Recall@K of every possible target, weighted by the truth."""
    example = runpy.run_path(str(EXAMPLE))
    truth, scores = example["truth"][:5], jax.random.normal(jax.random.key(1), (5, example["ITEMS"]))
    of_targets = recall_at_k(scores[:, None, :].repeat(100, 1), np.tile(np.eye(100), (5, 1, 1)), k=5)
    example["recall"].__globals__["truth"] = truth
    np.testing.assert_allclose(example["recall"](scores)[2], (of_targets * np.exp(truth)).sum(-1).mean(), rtol=1e-5)


@pytest.mark.slow
def test_each_anchor_serves_its_own_k(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    most = re.findall(r"K = (\d+)", capsys.readouterr().out)
    assert most[:4] == ["1", "3", "5", "10"]


def test_figures_and_the_correlations_they_show(tmp_path):
    table = theory.draw_all(tmp_path, rankings=500)
    assert list(table) == list(theory.SETTINGS)
    for (n_pos, _, k), (wpauc, opauc, auc) in table.items():
        assert opauc > auc + 0.1
        assert wpauc > opauc + 0.02 if n_pos < k else wpauc == pytest.approx(opauc, abs=1e-6)  # the same window, from 0
    assert table[1, 199, 5][0] == pytest.approx(1, abs=1e-6)
    names = {path.name for path in tmp_path.iterdir()}
    shown = set(re.findall(r"figures/(\w+\.png)", (ROOT / "docs" / "theory.md").read_text()))
    assert names == shown - {"gradient_share.png"}  # of benchmarks.gradient_share, which needs a trained run
    for name in names:  # those in the documents show the same, of more rankings
        drawn, kept = (matplotlib.image.imread(folder / name) for folder in (tmp_path, ROOT / "docs" / "figures"))
        assert drawn.shape == kept.shape
        ink = [(picture[..., :3] != 1).any(axis=2) for picture in (drawn, kept)]
        assert all(one.mean() > 0.02 for one in ink)
        assert (ink[0] & ink[1]).sum() > 0.5 * (ink[0] | ink[1]).sum()


def test_shares_of_the_gradient():
    """Beams give nothing to rows beyond the group; SFT gives all rows about as much; each column sums to 1."""
    rng = np.random.default_rng(0)
    logps = np.asarray(jax.nn.log_softmax(rng.normal(size=(500, 200)).astype(np.float32)))
    found = gradient_share.shares(logps, rng.integers(0, 200, 500), RlConfig(group_size=16, target_k=3))
    assert all(sum(values) == pytest.approx(1) for values in found.values())
    beyond, first = list(gradient_share.RANK_BUCKETS).index("51+"), 0
    assert found["GRPO"][beyond] == found["TAWin"][beyond] == 0 < found["exact"][beyond] < found["SFT"][beyond]
    np.testing.assert_allclose(found["SFT"], found["rows"], atol=0.02)
    assert found["rows"][first] < found["exact"][first] < found["GRPO"][first]
