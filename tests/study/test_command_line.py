"""What the command line of a study answers."""

import pathlib
import subprocess
import sys

import pytest

from wpauc_jax.config import ConfigError
from wpauc_jax.study.__main__ import main
from wpauc_jax.study.command_line import read

ROOT = pathlib.Path(__file__).parents[2]
STUDY = f"--config={ROOT / 'configs' / 'studies' / 'topk_control.py'}"


def asked(*arguments):
    return read(["study", *arguments])


def test_options_and_settings_of_the_base():
    found = asked(STUDY, "--workdir=x", "--study.seeds=3,5", "--study.workers=2", "--config.rl.steps=7")
    assert found.study.options.seeds == (3, 5) and found.study.options.workers == 2
    assert {arm.config.rl.steps for arm in found.study.resolved()} == {7}
    on = next(arm for arm in found.study.resolved() if arm.name == "sft_on")
    assert on.config.sft.steps == 7  # as many updates as RL, whatever the command line says
    assert found.folder == pathlib.Path("x") and "--study.seeds=3,5" in found.text
    assert asked("--config", STUDY.partition("=")[2], "--study.seeds=4").study.options.seeds == (4,)
    assert asked(STUDY + ":office").folder == pathlib.Path("runs/topk_control-office")


def test_some_arms_of_a_study():
    every = asked(STUDY).study.arms
    some = asked(STUDY, "--study.arms=sft_on, grpo,anchor2").study
    assert list(some.arms) == [name for name in every if name in ("sft_on", "grpo", "anchor2")]
    assert [arm.name for arm in some.resolved()] == list(some.arms)
    objectives = ROOT / "configs/studies/objectives.py"
    tuned = asked(f"--config={objectives}:office", "--study.arms=sft_on,grpo").study
    assert list(tuned.grid) == ["*", "sft_on"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([STUDY, "--study.arms=sft_on,anchor22"], "study.arms names 'anchor22', which is no arm; did you mean anchor2"),
        ([STUDY, "--study.arms=anchor2"], "study.arms leaves out 'grpo', with which every arm is compared"),
        ([STUDY, "--study.seed=3"], "there is no setting 'seed'; did you mean --study.seeds"),
        ([STUDY, "--config.rl.anchr=3"], "there is no setting 'rl.anchr'; did you mean --config.rl.anchor"),
        ([STUDY, "--study.seeds=(1,x)"], "study.seeds|literal|malformed"),
        ([STUDY, "--study.seeds=2,1"], "study.seeds=.* must be in ascending order"),
        ([STUDY, "--study.workers=many"], "study.workers=many"),
        ([STUDY, "--config.rl.group_size=4"], "arm 'anchor2|rl.target_k=3|arm 'anchor"),
        ([STUDY, "--sudy.seeds=1"], "there is no flag --sudy.seeds; did you mean --study.seeds"),
        ([STUDY, "more"], "unknown arguments: more"),
        ([STUDY + ":books"], "knows no data set 'books'"),
        (["--config=nowhere.py"], "does not exist; give a file of configs/, as in python -m wpauc_jax.study"),
        ([f"--config={ROOT / 'configs' / 'synthetic.py'}"], "has no function get_study"),
        ([], "--config is missing; give a file of configs/studies/"),
    ],
)
def test_what_is_mistyped_is_one_line(arguments, message, capsys):
    with pytest.raises(ConfigError, match=message) as caught:
        asked(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 5", "get_study returns 5, not a Study"),
        ("raise ValueError('a\\nb')", "ValueError: a b"),
        ("return unknown", "NameError: name 'unknown' is not defined"),
    ],
)
def test_a_study_file_may_be_wrong_in_any_way(tmp_path, body, message):
    (tmp_path / "own.py").write_text(f"def get_study(arg=None):\n    {body}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        asked(f"--config={tmp_path / 'own.py'}")
    assert "own.py" in str(caught.value) and "\n" not in str(caught.value)


def test_help_names_every_option(capsys):
    assert main(["study", "--help"]) == 0
    page = capsys.readouterr().out
    assert all(word in page for word in ("--study.seeds", "--study.workers", "--study.join", "--study.draws"))


def test_the_package_is_a_command(tmp_path):
    command = [sys.executable, "-m", "wpauc_jax.study", STUDY, "--study.seed=1", f"--workdir={tmp_path / 'x'}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1 and found.stderr.startswith("error: there is no setting 'seed'")
    assert not (tmp_path / "x").exists()
