"""The main job end to end on a tiny data set, called as a user calls it."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import matplotlib.image
import pytest

from tests.data_worlds import circle
from wpauc_jax import modes as run
from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RecommendConfig,
    RlConfig,
    SftConfig,
)
from wpauc_jax.data.sources import DataError
from wpauc_jax.evaluation.plots import COLOURS
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.stages import evaluate as evaluation
from wpauc_jax.stages import train
from wpauc_jax.training.storage import CheckpointError

ROOT = pathlib.Path(__file__).parent.parent
ITEMS, USERS = 24, 60


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("circle")
    circle(folder, items=ITEMS, users=USERS, shortest=6, longest=9)
    return folder


def circle_config(data: pathlib.Path) -> Config:
    return Config(
        exclude_history="off",  # tests/stages/test_history.py is about the other rule
        data=DataConfig(source="recbole", path=str(data), k_core=0, max_history=4),
        catalog=CatalogConfig(embedding="cooccurrence", embedding_width=8, levels=2, codes=4),
        model=ModelConfig(num_layers=1, width=32, num_heads=2, num_kv_heads=1, head_dim=16, ffn_width=48),
        sft=SftConfig(batch_size=16, steps=60, evals=2, optim=OptimConfig(learning_rate=1e-2)),
        rl=RlConfig(
            batch_size=8,
            steps=4,
            evals=1,
            group_size=6,
            rows="latest",
            holdout=0.2,
            optim=OptimConfig(learning_rate=1e-4),
        ),
        eval=EvalConfig(num_beams=10, batch_size=32),
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Config, pathlib.Path]:
    folder = tmp_path_factory.mktemp("work") / "run"
    config = circle_config(data)
    run.run_all(config, folder)
    return config, folder


def test_the_whole_job_learns_a_certain_world(finished):
    _, folder = finished
    ranks = {stage: Ranks.load(folder / "ranks" / f"{stage}.npz") for stage in ("popularity", "sft", "rl")}
    assert {len(table) for table in ranks.values()} == {USERS}
    assert ranks["popularity"].mean("recall@1") < 0.3
    assert ranks["sft"].mean("recall@1") > 0.6
    assert ranks["rl"].mean("recall@1") > 0.6
    results = json.loads((folder / "results.json").read_text())
    assert results["num_beams"] == 10 and results["scoring"] == "constrained"


def test_pictures_show_every_stage(finished):
    _, folder = finished
    assert {path.name for path in (folder / "plots").iterdir()} == {"stages.png", "training_sft.png", "training_rl.png"}
    bars = shares(folder / "plots" / "stages.png")
    assert all(bars[colour] > 0.001 for colour in COLOURS[:5])  # popularity, last_item, markov, sft, rl
    assert not bars[COLOURS[5]]
    for stage in ("sft", "rl"):
        assert shares(folder / "plots" / f"training_{stage}.png")[COLOURS[0]] > 0.001  # a curve in each panel


def shares(path: pathlib.Path) -> dict[str, float]:
    """How much of a picture has each of the plots' colours."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return {
        colour: float((pixels == [int(colour[place : place + 2], 16) for place in (1, 3, 5)]).all(axis=2).mean())
        for colour in COLOURS
    }


def test_metrics_of_rl_are_written_for_every_step(finished):
    _, folder = finished
    lines = [line for line in read_metrics(folder / "metrics.jsonl", "rl") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"reward", "hit_rate", "dead_groups", "kl", "entropy_low", "weight_by_rank", "grad_norm", "users_per_s"} <= (
        lines[0].keys()
    )


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def no_work(monkeypatch):
    """Fails where anything is compiled for training or evaluation."""
    for module, name in ((train, "fit"), (train, "evaluate"), (evaluation, "evaluate"), (evaluation, "plot_training")):
        monkeypatch.setattr(module, name, mock.Mock(side_effect=AssertionError(f"{name} was called")))


def test_a_second_call_only_reports(finished, no_work, capsys):
    config, folder = finished
    before = content(folder)
    for mode in ("all", "evaluate"):
        run.MODES[mode](config, folder)
        table = capsys.readouterr().out.splitlines()
        assert table[0].startswith(f"test set: {USERS} users")
        names = ["popularity", "last_item", "markov", "sft", "rl", "standard"]
        assert [line.split()[0] for line in table[3:9]] == names
        judged = [line.split()[1] for line in table[9:] if not line.startswith("rl: no step was better")]
        assert judged == ["sft", "rl"] * (len(judged) // 2) != []
    assert content(folder) == before


@pytest.mark.parametrize("change", ["ranks", "results", "parameters", "settings"])
def test_ranks_that_are_not_of_these_parameters_and_settings_are_made_anew(finished, tmp_path, change):
    config, original = finished
    folder = tmp_path / "run"
    shutil.copytree(original, folder)
    before = json.loads((folder / "results.json").read_text())
    if change == "ranks":
        shutil.copy(folder / "ranks" / "popularity.npz", folder / "ranks" / "rl.npz")
    elif change == "results":
        (folder / "results.json").unlink()
    elif change == "parameters":  # as after more training: the best of SFT in RL's place
        shutil.rmtree(folder / "rl" / "best")
        shutil.copytree(folder / "sft" / "best", folder / "rl" / "best")
    else:
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, num_beams=12))
    run.MODES["evaluate"](config, folder)
    after = json.loads((folder / "results.json").read_text())
    for stage in ("sft", "rl"):
        again = hashlib.sha256((folder / "ranks" / f"{stage}.npz").read_bytes()).hexdigest()
        assert after["evaluated"][stage]["ranks"] == {stage: again}
    if change in ("ranks", "results"):
        assert after == before
    elif change == "parameters":
        parameters = {stage: facts["parameters"] for stage, facts in after["evaluated"].items()}
        assert parameters["rl"] == parameters["sft"] != before["evaluated"]["rl"]["parameters"]
        assert after["stages"]["rl"] == before["stages"]["sft"]
    else:
        assert after["num_beams"] == 12 and after["stages"]["rl"]["list_length"] == 12


def test_only_training_writes_config_json(finished, tmp_path):
    """Evaluation with other flags, and a run that is refused, leave the training run's settings."""
    config, original = finished
    folder = tmp_path / "run"
    shutil.copytree(original, folder)
    before = (folder / "config.json").read_bytes()
    histories = tmp_path / "histories.jsonl"
    histories.write_text('{"user": "u", "history": ["i1"]}\n')
    other = dataclasses.replace(config, mode="recommend", recommend=RecommendConfig(input=str(histories), top_k=3))
    for mode in ("recommend", "evaluate", "prepare"):
        run.MODES[mode](dataclasses.replace(other, mode=mode), folder)
    with pytest.raises(CheckpointError):
        run.MODES["sft"](dataclasses.replace(config, seed=1), folder)
    assert (folder / "config.json").read_bytes() == before
    assert json.loads(before)["eval"]["num_beams"] == 10


def test_exact_evaluation_ranks_among_all_items(finished, capsys):
    config, folder = finished
    exact = dataclasses.replace(config, eval=dataclasses.replace(config.eval, exact=True))
    run.MODES["evaluate"](exact, folder)
    beams, everything = (Ranks.load(folder / "ranks" / f"{name}.npz") for name in ("rl", "rl-exact"))
    assert everything.num_candidates == ITEMS and (everything.rank >= 0).all()
    assert (everything.rank == beams.rank).mean() > 0.9  # a beam of 10 of 24 errs rarely in a certain world
    results = json.loads((folder / "results.json").read_text())
    assert results["exact"]["rl"]["auc"] == everything.mean("auc") > 0.9
    assert {"opauc@10", "wpauc@10", "missed@10"} <= results["exact"]["sft"].keys()
    assert "OPAUC@10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"seed": 1}, CheckpointError, "seed"),
        (
            {"catalog": CatalogConfig(embedding="cooccurrence", embedding_width=9)},
            ConfigError,
            "catalog.embedding_width=8, this run has 9",
        ),
        ({"data": DataConfig(source="recbole", path="elsewhere", k_core=0)}, ConfigError, "data.path="),
    ],
)
def test_a_work_directory_of_another_configuration_is_refused(finished, change, error, message):
    config, folder = finished
    with pytest.raises(error, match=message):
        run.run_all(dataclasses.replace(config, **change), folder)


def test_recommend_lists_only_the_catalogue(finished, tmp_path):
    config, folder = finished
    walks = {f"u{start}": [f"i{(start + step) % ITEMS}" for step in range(4)] for start in range(ITEMS)}
    walks |= {f"long {user}": ["i0", "i9", "i4", *walk] for user, walk in walks.items()}  # the window is of 4 items
    histories = tmp_path / "histories.jsonl"
    histories.write_text("".join(json.dumps({"user": user, "history": walk}) + "\n" for user, walk in walks.items()))
    settings = RecommendConfig(input=str(histories), output=str(tmp_path / "out.jsonl"), top_k=3)
    run.MODES["recommend"](dataclasses.replace(config, recommend=settings), folder)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lines] == list(walks)
    assert [line["items"] for line in lines[ITEMS:]] == [line["items"] for line in lines[:ITEMS]]
    right = [line["items"][0]["id"] == f"i{(start + 4) % ITEMS}" for start, line in enumerate(lines[:ITEMS])]
    assert sum(right) > 0.6 * ITEMS  # chance: 1 in 24
    for line in lines:
        scores = [item["score"] for item in line["items"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert len({item["id"] for item in line["items"]} & {f"i{item}" for item in range(ITEMS)}) == 3


def test_a_list_longer_than_the_catalogue_is_the_catalogue(finished, tmp_path):
    config, folder = finished
    histories = tmp_path / "histories.jsonl"
    histories.write_text('{"user": "u", "history": ["i1", "i2"]}\n')
    settings = RecommendConfig(input=str(histories), output=str(tmp_path / "out.jsonl"), top_k=ITEMS + 9)
    run.MODES["recommend"](dataclasses.replace(config, recommend=settings), folder)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert sorted(item["id"] for item in json.loads(line)["items"]) == sorted(f"i{item}" for item in range(ITEMS))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user": "w", "history": ["i1", "i99"]}', r"histories\.jsonl, line 2: item 'i99' of user 'w'"),
        ('{"user": "w", "history": []}', r"histories\.jsonl, line 2: the history of user 'w' is empty"),
    ],
)
def test_histories_that_cannot_be_answered_leave_no_output(finished, tmp_path, line, message):
    config, folder = finished
    histories = tmp_path / "histories.jsonl"
    histories.write_text('{"user": "u", "history": ["i1"]}\n' + line + "\n")
    settings = RecommendConfig(input=str(histories), output=str(tmp_path / "out.jsonl"))
    with pytest.raises(DataError, match=message):
        run.MODES["recommend"](dataclasses.replace(config, recommend=settings), folder)
    assert list(tmp_path.iterdir()) == [histories]


def test_a_group_larger_than_the_catalogue_is_refused(finished):
    config, folder = finished
    wide = dataclasses.replace(config, rl=dataclasses.replace(config.rl, group_size=ITEMS + 1))
    with pytest.raises(ConfigError, match=f"rl.group_size={ITEMS + 1} is larger than the catalog of {ITEMS} items"):
        run.MODES["rl"](wide, folder)


def test_rl_before_sft_is_refused(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="train this stage first"):
        run.MODES["rl"](circle_config(data), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.data.path=/no/such/place"], "/no/such/place"),
        (["--config.rl.target_k=16"], "rl.target_k=16 needs a negative of rank 15"),
    ],
)
def test_the_command_line_answers_a_mistake_in_one_line(arguments, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "wpauc_jax.main", "--config=configs/quickstart.py", f"--workdir={tmp_path}", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("*.parquet"))
