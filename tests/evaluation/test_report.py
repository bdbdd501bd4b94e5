"""The final table, results.json, the pictures and the comparison command."""

import json

import matplotlib.image
import numpy as np
import pytest

from wpauc_jax import compare
from wpauc_jax.evaluation import plots
from wpauc_jax.evaluation.ranks import Ranks, RanksError
from wpauc_jax.evaluation.report import Report, format_table, metric_title, write_results
from wpauc_jax.runtime.metric_lines import MetricWriter


def make_ranks(rank, num_candidates=20, sample=None, user=None):
    n = len(rank)
    sample = np.arange(n) if sample is None else sample
    return Ranks(sample, np.arange(n) if user is None else user, np.zeros(n), rank, num_candidates)


STAGES = {"popularity": make_ranks([40, 2, 0, 99], 100), "SFT": make_ranks([-1, 0, 0, 9])}
SETTINGS = {"recall_at": (1, 10), "ndcg_at": (3,), "num_items": 100, "scoring": "constrained"}


def test_the_table_says_what_was_measured():
    lines = Report(STAGES, **SETTINGS).table().splitlines()
    assert "test set: 4 users" in lines[0] and "100 items" in lines[0] and "constrained" in lines[0]
    assert lines[1].split() == ["stage", "ranked", "Recall@1", "Recall@10", "NDCG@3"]
    assert lines[3].split() == ["popularity", "all", "items", "0.2500", "0.5000", "0.3750"]
    assert lines[4].split() == ["SFT", "beam", "of", "20", "0.5000", "0.7500", "0.5000"]
    assert lines[5].split() == ["standard", "error", "at", "most", "0.2887", "0.2887", "0.2887"]


def test_several_samples_of_a_user_are_said():
    ranks = make_ranks([0, 1, 2, 3], user=[0, 0, 0, 1])
    assert "4 samples of 2 users" in Report({"SFT": ranks}, **SETTINGS).table()
    # One user alone has no standard error.
    only = {"SFT": make_ranks([0, 1], user=[0, 0])}
    assert Report(only, **SETTINGS).table().splitlines()[-1].split()[-3:] == ["-", "-", "-"]
    assert Report(only, **SETTINGS).summary()["stages"]["SFT"]["standard_errors"]["recall@1"] is None


def test_stages_on_other_samples_are_refused():
    other = {"SFT": STAGES["SFT"], "RL": make_ranks([0, 1, 2], sample=[0, 1, 7])}
    with pytest.raises(RanksError, match="SFT was measured on 4 samples and RL on 3 others"):
        Report(other, **SETTINGS)
    with pytest.raises(RanksError, match="no stage"):
        Report({}, **SETTINGS)


def test_results_in_full_precision(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, {"seed": 3} | Report(STAGES, **SETTINGS).summary())
    results = json.loads(path.read_text())
    assert (results["users"], results["samples"], results["items"], results["seed"]) == (4, 4, 100, 3)
    popularity = results["stages"]["popularity"]
    assert popularity["list_length"] == 100 and list(popularity["metrics"]) == ["recall@1", "recall@10", "ndcg@3"]
    assert popularity["metrics"]["ndcg@3"] == STAGES["popularity"].mean("ndcg@3")
    assert popularity["standard_errors"]["recall@1"] == STAGES["popularity"].standard_error("recall@1")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == results and [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_table_lines_up():
    assert format_table(["a", "bb"], [["long", "1"], ["x", "22222"]]) == (
        "a        bb\n----  -----\nlong      1\nx     22222"
    )
    assert metric_title("ndcg@10") == "NDCG@10" and metric_title("recall@3") == "Recall@3"


def write_metrics(path, steps=60):
    with MetricWriter(path) as writer:
        for step in range(1, steps + 1):
            weights = [0.5, 2.0, float("nan") if step == 1 else 0.5]
            values = {"loss": 5.0 / step, "entropy_low": 1.0, "entropy_high": 2.0, "weight_by_rank": weights}
            writer.write("rl", step, values | {"kl": float("nan") if step == 3 else 0.1, "users_per_s": 9.0})
            if step % 20 == 0:
                writer.write("rl/valid", step, {"recall@1": 0.1, "recall@10": step / 100, "ndcg@10": 0.2})
        writer.write("sft", 1, {"loss": 3.0})


def ink(path) -> float:
    """The share of a picture that is not white: an empty page has none."""
    return float((matplotlib.image.imread(path)[..., :3] != 1).any(axis=2).mean())


def test_training_curves_for_each_stage(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl")
    made = plots.plot_training(tmp_path / "metrics.jsonl", tmp_path / "plots")
    assert [path.name for path in made] == ["training_rl.png", "training_sft.png"]
    for path in made:
        assert ink(path) > 0.02


def test_training_panels_hold_what_was_logged(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl")
    lines = plots.read_metrics(tmp_path / "metrics.jsonl")
    train, valid = ([line for line in lines if line["stage"] == stage] for stage in ("rl", "rl/valid"))
    axes = [axis for axis in plots.training_figure("rl", train, valid).axes if axis.get_visible()]
    assert [axis.get_title("left") for axis in axes] == [
        "validation Recall",
        "validation NDCG",
        "loss",
        "entropy",
        "weight by rank among the negatives",
        "KL to the reference",
        "users/s",
    ]
    recall, _, loss, entropy, weights, kl, _ = axes
    assert [text.get_text() for text in recall.get_legend().get_texts()] == ["@1", "@10"]
    assert recall.lines[1].get_ydata().tolist() == [0.2, 0.4, 0.6]
    assert loss.lines[0].get_ydata().tolist() == [5.0 / step for step in range(1, 61)]
    assert [text.get_text() for text in entropy.get_legend().get_texts()] == ["low", "high"]
    assert [bar.get_height() for bar in weights.patches] == [0.5, 2.0, 0.5]
    assert 3 not in kl.lines[0].get_xdata() and len(kl.lines[0].get_xdata()) == 59


def test_the_moving_average_of_a_curve_is_unbiased_at_its_ends():
    lines = [{"stage": "sft", "step": step, "loss": float(step), "grad_norm": 2.0} for step in range(75)]
    loss, norm = (axis for axis in plots.training_figure("sft", lines, []).axes if axis.get_visible())
    assert (norm.lines[1].get_ydata() == 2.0).all()
    expected = [0.5, *range(1, 74), 73.5]  # of three steps each, of two at the ends
    np.testing.assert_allclose(loss.lines[1].get_ydata(), expected, rtol=1e-12)


def test_bars_and_their_standard_errors():
    figure = plots.stages_figure(STAGES, (1, 10), (3,))
    recall, ndcg = figure.axes
    assert [bar.get_height() for bar in recall.patches] == [0.25, 0.5, 0.5, 0.75]  # stage by stage
    assert [bar.get_height() for bar in ndcg.patches] == [0.375, 0.5]
    low, high = recall.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(STAGES["popularity"].standard_error("recall@1"), rel=1e-9)
    assert [tick.get_text() for tick in recall.get_xticklabels()] == ["Recall@1", "Recall@10"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(STAGES)


def test_the_picture_of_the_stages(tmp_path):
    for recall_at, ndcg_at in (((1, 10), (3,)), ((1,), ())):
        plots.plot_stages(STAGES, tmp_path / "stages.png", recall_at=recall_at, ndcg_at=ndcg_at)
        assert ink(tmp_path / "stages.png") > 0.02


def test_no_metrics_no_picture(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert plots.plot_training(tmp_path / "metrics.jsonl", tmp_path) == []


def test_compare_prints_the_difference(tmp_path, capsys):
    rng = np.random.default_rng(0)
    a = make_ranks(rng.integers(0, 20, 200))
    b = [make_ranks(np.maximum(a.rank - shift, 0)) for shift in (4, 6)]
    paths = [str(tmp_path / f"{name}.npz") for name in ("a", "b1", "b2")]
    for ranks, path in zip([a, *b], paths, strict=True):
        ranks.save(path)
    command = [paths[0], ",".join(paths[1:]), "--recall_at", "5", "--ndcg_at", "10", "--samples", "500"]
    assert compare.main(["compare", *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "200 samples of 200 users" in lines[2]
    cells = lines[5].split()
    mean_b = np.mean([ranks.mean("recall@5") for ranks in b])
    assert cells[:3] == ["Recall@5", f"{a.mean('recall@5'):.4f}", f"{mean_b:.4f}"]
    assert float(cells[3]) == pytest.approx(mean_b - a.mean("recall@5"), abs=6e-5)
    assert lines[6].startswith("NDCG@10") and len(lines) == 7


def test_compare_names_what_it_cannot_read(tmp_path, capsys):
    STAGES["SFT"].save(tmp_path / "a.npz")
    assert compare.main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "absent.npz")]) == 2
    assert "absent.npz: there is no such file" in capsys.readouterr().err
    STAGES["popularity"].save(tmp_path / "b.npz")
    make_ranks([0]).save(tmp_path / "one.npz")
    assert compare.main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "one.npz")]) == 2
    assert "A holds 4 samples and B 1, of which 1 are in both" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--samples", "0"])
    assert "0 is not at least 1" in capsys.readouterr().err
