"""A study that cannot be run or compared is refused before anything runs, in words that say what to do."""

import dataclasses
from pathlib import Path

import pytest

from tests.study_worlds import ARMS, BASE, small_study
from wpauc_jax.config import ConfigError
from wpauc_jax.stages.baselines import BASELINES
from wpauc_jax.study import SHARED_SFT, Of
from wpauc_jax.study.runs import arm_job

ON = {"mode": "sft", "sft.start_from": SHARED_SFT, "rl.rows": "same", "sft.steps": Of("rl.steps")}


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"rl.ancor": 4}}, r"arm 'a': there is no setting 'rl.ancor'; did you mean rl.anchor"),
        ({"a": {"rl": 4}}, "arm 'a': rl is a group of settings; give one of them, as in rl.batch_size"),
        ({"a": {"rl.anchor": 99}}, "arm 'a': rl.anchor=99 is beyond the last negative"),
        ({"a": {"rl.anchor": "x"}}, "arm 'a': rl.anchor='x' must be a whole number"),
        ({"a": {"sft.steps": Of("rl.stepz")}}, "arm 'a': there is no setting 'rl.stepz'; did you mean rl.steps"),
        ({"a": {"rl.anchor": 1}, "b": {"rl.target_k": 2}}, "the arms 'a' and 'b' are alike"),
        ({"a": {}, "b": {"rl.std": "sample"}}, "the arms 'a' and 'b' are alike"),
        ({"a": {"data.max_history": 2}}, "arm 'a': data.max_history would give the arm other data than its control's"),
        ({"a": {"seed": 3}}, "arm 'a': seed is no setting of an arm: the seeds are those of --study.seeds"),
        ({"a": {"sft_from": "x"}}, "arm 'a': sft_from is no setting of an arm"),
        ({"a": {"exclude_history": "on"}}, "arm 'a': exclude_history is no setting of an arm: one comparison"),
        ({"a": {"mode": "doctor"}}, "arm 'a': mode='doctor' trains nothing"),
        ({"a b": {}}, "an arm's name 'a b' must be of letters"),
        ({"../a": {}}, "an arm's name"),
        ({"markov": {}}, "an arm cannot be called 'markov'"),
        ({"sft": {}}, "an arm cannot be called 'sft'"),
        ({}, "the study has no arm"),
    ],
)
def test_wrong_arms(arms, message):
    with pytest.raises(ConfigError, match=message):
        small_study(arms, controls=tuple(arms)[:1] or ("sft",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ()}, r"controls=\(\) must name at least one arm"),
        ({"controls": ("grpo", "grpo")}, "each once"),
        ({"controls": ("gpro",)}, "the control 'gpro' is no arm; did you mean grpo"),
        ({"metrics": ()}, r"metrics=\(\) must hold at least one metric"),
        ({"metrics": ("recal@3",)}, "unknown metric 'recal@3'"),
        ({"metrics": ("auc",)}, "auc needs lists of that length"),
        ({"metrics": ("recall@9",)}, "recall@9 needs lists of that length; eval.num_beams is 8"),
        ({"grid": {"anchr0": {"rl.steps": (1,)}}}, "the grid names 'anchr0', which is no arm; did you mean anchor0"),
        ({"grid": {"grpo": {"rl.step": (1,)}}}, "there is no setting 'rl.step'; did you mean rl.steps"),
        ({"grid": {"grpo": {"rl.steps": 3}}}, "grid of rl.steps: 3 must be a tuple of values"),
        ({"grid": {"*": {"rl.steps": ()}}}, "must be a tuple of values"),
        ({"grid": {"*": {"rl.optim.learning_rate": (-1.0,)}}}, "arm 'grpo': rl.optim.learning_rate=-1.0 must be above"),
        ({"base": dataclasses.replace(BASE, mode="rl")}, "the base of a study is a whole run"),
        ({"seeds": (1, 0)}, "study.seeds=.* must be in ascending order"),
        ({"workers": 0}, "study.workers=0 must be at least 1"),
    ],
)
def test_wrong_studies(changes, message):
    with pytest.raises(ConfigError, match=message):
        small_study(**changes)


def test_a_control_may_need_no_training_but_must_be_there():
    small_study(controls=("markov", "sft", "optimum"))
    data = dataclasses.replace(BASE.data, source="auto")
    with pytest.raises(ConfigError, match="the control 'optimum' is no arm"):
        small_study(base=dataclasses.replace(BASE, data=data), controls=("optimum",))
    assert "optimum" in BASELINES


def test_what_arms_share():
    arms = {**ARMS, "on": ON, "ids": {"catalog.codes": 5}, "slow": {"sft.steps": 9}, "rows": {"rl.rows": "latest"}}
    found = {arm.name: arm for arm in small_study(arms).resolved()}
    assert {name for name, arm in found.items() if arm.shares_sft} == set(ARMS)
    assert {name for name, arm in found.items() if not arm.shares_catalog} == {"ids"}
    assert found["on"].goes_on and found["on"].stage == "sft" and found["on"].config.sft.steps == BASE.rl.steps
    tuned = small_study(grid={"grpo": {"sft.steps": (3, 4)}}).resolved()[0]
    assert not tuned.shares_sft and tuned.points == ({"sft.steps": 3}, {"sft.steps": 4})


def test_the_grid_of_every_arm_leaves_sft_alone_where_it_is_rls():
    grid = {"*": {"rl.optim.learning_rate": (1e-4, 1e-3), "eval.valid_users": (8,)}, "anchor0": {"rl.kl_coef": (0.0,)}}
    found = {arm.name: arm.points for arm in small_study({**ARMS, "on": ON}, grid=grid).resolved()}
    assert len(found["grpo"]) == 2 and found["on"] == ({"eval.valid_users": 8},)
    assert found["anchor0"][1] == {"rl.optim.learning_rate": 1e-3, "eval.valid_users": 8, "rl.kl_coef": 0.0}


def test_a_run_begins_at_one_sft_however_the_directory_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = small_study({"grpo": {"rl.weighting": "none"}, "on": ON})
    for arm in study.resolved():
        jobs = [arm_job(folder, study, arm, {}, 0, measured=True) for folder in (Path("runs/x"), tmp_path / "runs/x")]
        assert jobs[0].config == dataclasses.replace(jobs[1].config, data=jobs[0].config.data)
        assert str(tmp_path / "runs/x/base/seed0") in (jobs[0].config.sft_from, jobs[0].config.sft.start_from)
