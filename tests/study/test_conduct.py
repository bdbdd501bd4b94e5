"""A whole study on a tiny world: what is shared, tuned, resumed, refused, joined, and what the pages say."""

import csv
import json
import shutil

import pytest

from tests.study_worlds import ARMS, BASE, InProcess, small_study
from wpauc_jax.config import ConfigError
from wpauc_jax.config.names import with_settings
from wpauc_jax.evaluation.ranks import RanksError
from wpauc_jax.study import SHARED_SFT, Of
from wpauc_jax.study.conduct import conduct

ON = {"mode": "sft", "sft.start_from": SHARED_SFT, "sft.steps": Of("rl.steps")}
EVERYTHING = {**ARMS, "on": ON, "ids": {"mode": "sft", "catalog.ids": "atomic"}}
GRID = {"grpo": {"rl.optim.learning_rate": (1e-4, 1e-2)}}


def do(study, folder):
    """(exit code, jobs that were started, lines that were said)"""
    start, said = InProcess(), []
    return conduct(study, folder, start, said.append, command="the command"), start.started, said


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study with every kind of arm, one of them tuned."""
    folder = tmp_path_factory.mktemp("studies") / "first"
    study = small_study(EVERYTHING, controls=("grpo", "on"), grid=GRID)
    code, started, said = do(study, folder)
    assert code == 0, said
    return folder, study, started, said


@pytest.fixture
def altered(done, tmp_path):
    """The finished study, to be damaged at will: it is put back afterwards. A study stays where it is."""
    kept = shutil.copytree(done[0], tmp_path / "kept")
    yield done[0]
    shutil.rmtree(done[0])
    shutil.copytree(kept, done[0])


def test_what_is_shared_is_made_once_and_the_test_split_comes_after_tuning(done):
    folder, _, started, _ = done
    trained = [title for title, modes in started if "sft" in modes]
    assert trained[:2] == ["sft (training), seed 0", "sft (training), seed 1"]
    assert sorted(trained[2:]) == sorted(f"{arm}, seed {seed}" for arm in ("on", "ids") for seed in (0, 1))
    points = [i for i, (title, modes) in enumerate(started) if "learning_rate" in title]
    measured = [i for i, (_, modes) in enumerate(started) if modes[-1] in ("all", "evaluate")]
    assert len(points) == 2 and max(points) < min(measured)
    assert {started[i][1] for i in points} == {("rl",)}
    catalogs = [path.read_bytes() for path in folder.glob("arms/*/*/seed*/catalog.npz") if "ids" not in path.parts]
    assert set(catalogs) == {(folder / "base" / "seed0" / "catalog.npz").read_bytes()}
    assert len(list(folder.rglob("manifest.json"))) == 1


def test_validation_alone_chooses_and_that_is_recorded(done):
    folder, _, _, said = done
    state = json.loads((folder / "study.json").read_text())
    tuned = state["tuned"]["grpo"]
    values = {point["point"]["rl.optim.learning_rate"]: point["value"] for point in tuned["points"]}
    assert tuned["chosen"]["rl.optim.learning_rate"] == max(values, key=values.__getitem__)
    assert any("arm 'grpo': validation chooses rl.optim.learning_rate=" in line for line in said)


def test_the_pages_hold_all_that_one_needs_to_believe_them(done):
    folder, _, _, _ = done
    for name in ("study.md", "study.html"):
        text = (folder / name).read_text()
        for word in (
            *("optimum", "markov", "anchor2", "on", "Recall@3", "the command", "sha256", "Tuned values", "Failures"),
            *("users and seeds", "smallest", "rl.anchor=2", "sft.start_from", "catalog of ids"),
        ):
            assert word in text, (name, word)
    page = (folder / "study.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and 'src="pictures' not in page and "http" not in page
    assert 'name="viewport"' in page
    for picture in (folder / "pictures").glob("*.png"):
        assert f"pictures/{picture.name}" in (folder / "study.md").read_text()
    anchors = list(csv.DictReader((folder / "pictures" / "recall_by_anchor.csv").open()))
    assert {(row["anchor"], row["k"]) for row in anchors} == {(a, k) for a in "02" for k in "123"}
    compared = list(csv.DictReader((folder / "comparisons.csv").open()))
    assert len(compared) == (4 + 3) * 2  # four arms against grpo, and against on the three that are not grpo
    assert all(float(row["p_corrected"]) >= float(row["p_value"]) for row in compared)
    lengths = list(csv.DictReader((folder / "pictures" / "recall_by_length.csv").open()))
    assert {row["arm"] for row in lengths} == {"optimum", "anchor0", "anchor2", "on", "ids"}
    assert "comparisons; after Holm's correction" in (folder / "study.md").read_text()
    widest = max(line.count(" | ") for line in (folder / "study.md").read_text().splitlines() if line.startswith("|"))
    assert widest <= 6


def test_what_is_done_is_not_done_again(done):
    folder, study, _, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.parent.name.startswith("seed")}
    code, started, _ = do(study, folder)
    assert (code, started) == (0, [])
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_study_that_was_cut_off_goes_on_with_the_runs_that_lack(altered, done):
    shutil.rmtree(next(altered.glob("arms/anchor0/*/seed1")))
    (next(altered.glob("arms/anchor2/*/seed0")) / "ranks" / "rl.npz").write_bytes(b"half")
    (altered / "base" / "seed1" / "results.json").unlink()
    (altered / "study.json").unlink()  # the files of the runs are enough
    code, started, _ = do(done[1], altered)
    assert code == 0
    assert {title for title, _ in started} == {"anchor0, seed 1", "anchor2, seed 0", "sft (evaluation), seed 1"}


@pytest.mark.slow
def test_a_changed_arm_is_run_anew_and_said_so(altered):
    arms = {**EVERYTHING, "anchor2": {"rl.anchor": 3}}
    old = next(altered.glob("arms/anchor2/*/seed0/results.json"))
    code, started, said = do(small_study(arms, controls=("grpo", "on"), grid=GRID), altered)
    assert code == 0 and {title for title, _ in started} == {"anchor2, seed 0", "anchor2, seed 1"}
    assert any("arm 'anchor2' has changed (rl.anchor: 2 then, 3 now): it is run anew" in line for line in said)
    assert old.exists()
    code, started, _ = do(small_study(EVERYTHING, controls=("grpo", "on"), grid=GRID), altered)
    assert (code, started) == (0, [])  # and back: the earlier runs are still there


def test_a_directory_of_another_base_is_refused_and_untouched(altered):
    before = {path: path.read_bytes() for path in altered.rglob("*") if path.is_file()}
    other = with_settings(BASE, {"rl.kl_coef": 0.5})
    with pytest.raises(ConfigError, match=r"is the study of another base: rl.kl_coef: 0.001 then, 0.5 now."):
        do(small_study(base=other), altered)
    assert before == {path: path.read_bytes() for path in altered.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="is the work directory of a run, and no study's"):
        do(small_study(), altered / "base" / "seed0")
    (altered / "study.json").write_text("[")
    with pytest.raises(ConfigError, match=r"study\.json is damaged or no study's"):
        do(small_study(), altered)


def test_a_run_on_other_data_is_refused(altered, done):
    path = next(altered.glob("arms/anchor0/*/seed0/results.json"))
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "data": "other"}))
    with pytest.raises(RanksError, match="was measured on other data than"):
        do(done[1], altered)


def test_an_arm_that_diverges_is_recorded_and_the_others_go_on(tmp_path):
    arms = {"grpo": {"rl.weighting": "none"}, "bad": {"rl.faults.max_loss": 1e-30}}
    study = small_study(arms, seeds=(0,), grid={"bad": {"rl.kl_coef": (0.0, 0.1)}})
    code, started, said = do(study, tmp_path / "study")
    assert code == 1
    assert [title for title, _ in started][-1] == "grpo, seed 0"
    assert any(line.startswith("failed: bad (rl.kl_coef=0.0), seed 0: ") for line in said)
    text = (tmp_path / "study" / "study.md").read_text()
    assert "beyond faults.max_loss" in text and "Runs of bad are missing: these arms are not compared" in text
    assert "nothing: every point failed" in text
    assert "One seed: every interval is over users" in text


@pytest.mark.slow
def test_two_studies_are_joined(done, tmp_path):
    first, _, _, _ = done
    arms = {"grpo": {"rl.weighting": "none"}, "window": {"rl.weighting": "window"}}
    code, _, _ = do(small_study(arms, seeds=(0,), join=str(first)), tmp_path / "second")
    text = (tmp_path / "second" / "study.md").read_text()
    assert code == 0 and "| window |" in text and "| anchor2 |" in text and "| grpo (first) |" in text
    assert "Where the numbers of first come from" in text
    compared = {row["arm"] for row in csv.DictReader((tmp_path / "second" / "comparisons.csv").open())}
    assert compared == {"window", "grpo (first)", "anchor0", "anchor2", "on", "ids"}


def test_what_cannot_be_joined_is_refused_before_anything_runs(done, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has no study\.json: it is no study's directory"):
        do(small_study(join=str(tmp_path / "empty")), tmp_path / "study")
    other = with_settings(BASE, {"data.synthetic.seed": 5})
    with pytest.raises(ConfigError, match=r"its base has other data: data\.synthetic\.seed: 0 then, 5 now"):
        do(small_study(base=other, join=str(done[0])), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_grid_whose_points_are_judged_by_different_metrics_is_refused(tmp_path):
    study = small_study(grid={"grpo": {"rl.target_k": (1, 2)}})
    with pytest.raises(ConfigError, match="arm 'grpo': its grid would compare recall@1 with recall@2"):
        do(study, tmp_path / "study")


@pytest.mark.slow
def test_an_arm_that_gains_nothing_is_named(tmp_path):
    """Its best parameters are those of its start: the page says so."""
    arms = {"harmful": {"rl.optim.learning_rate": 1.0, "rl.steps": 1}}
    study = small_study(arms, controls=("sft",), seeds=(0,))
    code, _, said = do(study, tmp_path)
    assert code == 0, said
    kept = "No step was better on validation than the start, which is then what was kept: harmful (1 of 1 seeds)"
    assert kept in (tmp_path / "study.md").read_text()
    with (tmp_path / "comparisons.csv").open() as file:
        assert {float(row["difference"]) for row in csv.DictReader(file)} == {0.0}
