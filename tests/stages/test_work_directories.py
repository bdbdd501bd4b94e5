"""Work directories that are none, damaged, lost in part, not to be written to, or to be trained further."""

import dataclasses
import errno
import json
import shutil

import pytest

from tests.stages.test_old_run import CONFIG, content, folder  # noqa: F401 - the fixture of its work directory
from tests.stages.test_remembers import changed, histories, later  # noqa: F401 - a fixture
from wpauc_jax import modes
from wpauc_jax.config import ConfigError
from wpauc_jax.runtime import files
from wpauc_jax.stages import evaluate as evaluation
from wpauc_jax.stages import sizes, train
from wpauc_jax.stages.baselines import BASELINES
from wpauc_jax.stages.run import open_prepared
from wpauc_jax.training.checkpoint import changed_settings
from wpauc_jax.training.storage import CheckpointError

LATER = ("evaluate", "recommend", "export", "doctor")


@pytest.mark.parametrize("mode", LATER)
def test_a_later_mode_makes_no_work_directory(tmp_path, histories, mode):  # noqa: F811
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="none does not exist"):
        later(mode, CONFIG, tmp_path / "none", histories)
    with pytest.raises(ConfigError, match="is no run's work directory"):
        later(mode, CONFIG, tmp_path, histories)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_needs_a_trained_stage_says_so_before_anything(folder, histories):  # noqa: F811
    for stage in ("sft", "rl"):
        shutil.rmtree(folder / stage)
    before = content(folder)
    for mode in ("recommend", "export"):
        with pytest.raises(ConfigError, match="nothing is trained in"):
            later(mode, CONFIG, folder, histories)
    with pytest.raises(ConfigError, match="holds no parameters: start with mode=sft"):
        later("rl", CONFIG, folder, histories)
    elsewhere = dataclasses.replace(CONFIG, sft_from=str(folder / "nowhere"))
    for mode in ("all", "rl"):
        with pytest.raises(ConfigError, match="nowhere' has no trained SFT"):
            later(mode, elsewhere, folder, histories)
    assert content(folder) == before


def test_where_rl_is_lost_sft_answers_and_that_is_said(folder, histories, capsys):  # noqa: F811
    shutil.rmtree(folder / "rl" / "best")
    later("recommend", CONFIG, folder, histories)
    said = capsys.readouterr().err
    assert "sft answers, with its best parameters, those of step 4" in said
    assert "rl/best holds no parameters" in said
    assert json.loads((folder / "recommendations.jsonl").read_text())["stage"] == "sft"
    later("evaluate", CONFIG, folder, histories)
    found = capsys.readouterr()
    assert "rl/best holds no parameters" in found.err and "\nrl " not in found.out and "\nsft " in found.out
    assert set(json.loads((folder / "results.json").read_text())["stages"]) == {*BASELINES, "sft"}


def test_histories_are_read_before_a_model(folder, histories, monkeypatch):  # noqa: F811
    monkeypatch.setattr(modes, "with_model", lambda *_: pytest.fail("a model was made"))
    histories.write_text('{"user": "u", "history": ["no such item"]}\n')
    with pytest.raises(ValueError, match="no such item"):
        later("recommend", CONFIG, folder, histories)


@pytest.mark.parametrize(
    "text", ["", '{"identity": {', "[1]", '{"identity": {}, "evaluated": {"rl": 3}, "stages": {}}']
)
def test_damaged_results_are_made_anew(folder, text, capsys, monkeypatch):  # noqa: F811
    path = folder / "results.json"
    whole = json.loads(path.read_text())
    path.write_text(text)
    (folder / "metrics.jsonl").unlink()
    evaluated = []

    def evaluate_stage(work, stage, rows, say):
        evaluated.append(stage)
        return whole["evaluated"][stage] | {"exact": {}}, {}

    monkeypatch.setattr(evaluation, "_evaluate_stage", evaluate_stage)
    modes.run(dataclasses.replace(CONFIG, mode="evaluate"), folder)
    found = capsys.readouterr()
    assert evaluated == ["sft", "rl"] and "\nrl " in found.out
    assert "results.json is damaged: it is made anew" in found.err or "rewritten" in found.err
    assert "metrics.jsonl is missing" in found.err
    again = json.loads(path.read_text())["stages"]
    assert {name: again[name] for name in whole["stages"]} == whole["stages"]
    assert again.keys() == {*BASELINES, "sft", "rl"}


def test_a_damaged_config_json_is_made_anew(folder, capsys):  # noqa: F811
    (folder / "config.json").write_text('{"mode"')
    modes.run(CONFIG, folder)
    assert "config.json is damaged: it is made anew" in capsys.readouterr().err
    assert json.loads((folder / "config.json").read_text())["rl"]["steps"] == 4


def test_a_plot_that_fails_loses_no_results(folder, capsys, monkeypatch):  # noqa: F811
    (folder / "results.json").write_text("{")

    def broken(*_, **__):
        assert json.loads((folder / "results.json").read_text())["stages"]
        raise RuntimeError("no font")

    monkeypatch.setattr(evaluation, "_evaluate_stage", lambda *_: ({"step": 0, "exact": {}}, {}))
    monkeypatch.setattr(evaluation, "plot_training", broken)
    modes.run(dataclasses.replace(CONFIG, mode="evaluate"), folder)
    found = capsys.readouterr()
    assert "\nrl " in found.out and "the plots could not be made (RuntimeError: no font)" in found.err


@pytest.mark.parametrize("mode", ["all", "evaluate"])
def test_where_nothing_can_be_written_the_table_is_printed(folder, capsys, monkeypatch, mode):  # noqa: F811
    (folder / "results.json").unlink()
    before = content(folder)

    def refused(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(files, "_beside", refused)
    monkeypatch.setattr(evaluation, "_evaluate_stage", lambda *_: ({"step": 0, "exact": {}}, {}))
    modes.run(dataclasses.replace(CONFIG, mode=mode), folder)
    found = capsys.readouterr()
    assert "\nrl " in found.out and "results.json cannot be written (Read-only file system)" in found.err
    assert content(folder) == before


def test_results_of_other_settings_give_way_with_a_line(folder, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(evaluation, "_evaluate_stage", lambda *_: ({"step": 0, "exact": {}}, {}))
    modes.run(dataclasses.replace(changed("eval.num_beams", 10), mode="evaluate"), folder)
    assert (
        "is rewritten: its results were of other settings (eval.num_beams: 8 then, 10 now)" in capsys.readouterr().err
    )


def test_damaged_best_parameters_say_what_helps(folder, histories):  # noqa: F811
    """The one checkpoint of RL counts on its best parameters, so there is no way back."""
    (folder / "rl" / "best" / "0" / "params" / "_METADATA").unlink()
    with pytest.raises(
        CheckpointError, match=r"no checkpoint does without it: delete .*/rl and start the training"
    ) as told:
        later("recommend", CONFIG, folder, histories)
    assert "\n" not in str(told.value)
    with pytest.raises(CheckpointError, match=r"delete .*/rl to start this stage anew"):
        modes.run(CONFIG, folder)


@pytest.mark.parametrize(
    ("name", "value", "trains", "message"),
    [
        ("eval.ndcg_at", (3, 13), (), "eval.ndcg_at=13 is larger than the catalog of 12 items"),
        ("eval.recall_at", (1, 20), (), "eval.recall_at=20 is larger than the catalog of 12 items"),
        (
            "rl.group_size",
            13,
            ("sft", "rl"),
            "rl.group_size=13 is larger than the catalog of 12 items; lower it to at most 12",
        ),
        ("rl.group_size", 13, ("sft",), ""),
    ],
)
def test_sizes_are_held_against_the_catalog(folder, name, value, trains, message):  # noqa: F811
    wide = dataclasses.replace(CONFIG, eval=dataclasses.replace(CONFIG.eval, num_beams=20))
    section, field = name.split(".")
    config = dataclasses.replace(wide, **{section: dataclasses.replace(getattr(wide, section), **{field: value})})
    lines: list[str] = []
    prepared = open_prepared(config, folder, lines.append)
    if message:
        with pytest.raises(ConfigError, match=message):
            sizes.check_sizes(prepared, lines.append, trains=trains)
    else:
        sizes.check_sizes(prepared, lines.append, trains=trains)
        assert "eval.num_beams=20 is more than the catalog of 12 items: every item is ranked" in lines


def test_sizes_are_checked_before_a_model_is_made(folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr(modes, "workspace_of", lambda _: pytest.fail("a model was made"))
    for mode in ("all", "rl"):
        with pytest.raises(ConfigError, match=r"rl\.group_size=13 is larger"):
            modes.run(dataclasses.replace(changed("rl.group_size", 13), mode=mode), folder)


def test_more_steps_go_on_and_fewer_are_refused(folder, capsys):  # noqa: F811
    """SFT was finished at step 8. RL, which began from it, is left alone."""
    rl = {path: text for path, text in content(folder).items() if path.parts[0] == "rl"}
    longer = changed("sft.steps", 10)
    modes.run(dataclasses.replace(longer, mode="sft"), folder)
    said = capsys.readouterr().err
    assert "sft.steps: 8 then, 10 now: from here on the learning rate follows the schedule of 10 steps" in said
    assert "goes on after step 8 of 10" in said
    assert changed_settings(folder / "sft" / "checkpoints", {"sft": {"steps": 10}}) == []
    modes.run(longer, folder)
    said = capsys.readouterr().err
    assert "rl was trained from an earlier SFT (sft.steps: 8 then, 10 now) and is left as it is" in said
    assert {path: text for path, text in content(folder).items() if path.parts[0] == "rl"} == rl
    with pytest.raises(CheckpointError, match="sft has taken 10 steps already, more than the 9 asked for now"):
        modes.run(dataclasses.replace(changed("sft.steps", 9), mode="sft"), folder)
    with pytest.raises(CheckpointError, match=r"sft\.batch_size: 8 then, 16 now"):
        both = dataclasses.replace(longer.sft, batch_size=16, steps=12)
        modes.run(dataclasses.replace(longer, mode="sft", sft=both), folder)


def test_checkpoints_that_are_gone_are_missed_aloud(folder, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(train, "_run", lambda *args: 0)
    shutil.rmtree(folder / "sft" / "checkpoints")
    later("sft", CONFIG, folder, None)
    assert "sft/checkpoints holds no checkpoint: sft starts anew" in capsys.readouterr().err
    shutil.rmtree(folder / "sft" / "best")
    later("sft", CONFIG, folder, None)
    assert "holds no checkpoint" not in capsys.readouterr().err
