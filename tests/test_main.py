"""The command line: what it answers, and how it ends."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wpauc_jax.config import ConfigError, command_line
from wpauc_jax.config.run import MODES
from wpauc_jax.main import main

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"--config={ROOT / 'configs' / 'quickstart.py'}"


def read(*arguments):
    return command_line.read(["main", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CONFIG, "--config.rl.tagret_k=5"], "there is no setting 'rl.tagret_k'; did you mean --config.rl.target_k?"),
        ([CONFIG, "--config.target_k", "5"], "there is no setting 'target_k'; did you mean --config.rl.target_k"),
        ([CONFIG, "--noconfig.model.tie_embedings"], "did you mean --config.model.tie_embeddings"),
        ([CONFIG, "--config.rl=5"], "rl is a group of settings; give one of them, as in --config.rl.batch_size=VALUE"),
        ([CONFIG, "--config.zzz=5"], "there is no setting 'zzz'; docs/settings.md lists all settings"),
        ([CONFIG, "--rl.target_k=5"], "there is no flag --rl.target_k; did you mean --config.rl.target_k"),
        ([CONFIG, "--workdri=x"], "there is no flag --workdri; did you mean --workdir?"),
        (["--confg=x"], "there is no flag --confg; did you mean --config?"),
        (
            [CONFIG, "--config.mode=evalute"],
            "mode='evalute' is unknown; did you mean 'evaluate'\\? All are: all, prepare",
        ),
        ([CONFIG, "--config.sft.loss=catalogue"], "sft.loss='catalogue' is now spelled 'catalog'"),
        ([CONFIG, "--config.rl.target_k=many"], "^flag --config.rl.target_k=many: must be a whole number$"),
        ([CONFIG, "--config.rl.anchor=x"], "^flag --config.rl.anchor=x: must be a whole number$"),
        ([CONFIG, "--config.model.freeze=perhaps"], "config.model.freeze=perhaps"),
        ([CONFIG, "--num_processes=two"], "flag --num_processes=two"),
        ([CONFIG, "--config.eval.recall_at=(a,b)"], r"eval.recall_at='\(a,b\)' must be a whole number"),
        ([CONFIG, "--config.seed"], "Missing value for flag --config.seed"),
        ([CONFIG, "sft"], "unknown arguments: sft; settings are given as --config.name=value"),
        ([CONFIG + ":small"], r"configs/quickstart.py takes no argument, got 'small'"),
        (["--config=nowhere.py"], "--config='nowhere.py' does not exist; give a file of configs/"),
        ([f"--config={ROOT}"], "is a folder; give a file of configs/"),
        ([f"--config={ROOT / 'Makefile'}"], "SyntaxError: invalid syntax"),
        ([CONFIG, f"--workdir={ROOT / 'Makefile'}"], "is a file; give a directory"),
        (
            [],
            "--config is missing; give a file of configs/, as in python -m wpauc_jax.main --config=configs/quickstart",
        ),
    ],
)
def test_what_is_mistyped_is_one_line(arguments, message, capsys):
    assert main(["main", *arguments]) == 1
    out, error = capsys.readouterr()
    assert not out and error.startswith("error: ") and error.count("\n") == 1
    with pytest.raises(ConfigError, match=message):
        read(*arguments)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 5", "a configuration of int holds no settings"),
        ("return None", "a configuration of NoneType holds no settings"),
        ("return to_config_dict(Config(sft=SftConfig(steps=-3)))", "^sft.steps=-3 must be at least 0$"),
        ("return unknown", "own.py, line 3: NameError: name 'unknown' is not defined"),
        ("raise ValueError('a\\nb')", "own.py: b"),
        ("return ml_collections.ConfigDict({'x': 1})", "unknown settings in Config: x"),
    ],
)
def test_a_configuration_file_may_be_wrong_in_any_way(tmp_path, body, message):
    (tmp_path / "own.py").write_text(
        f"import ml_collections; from wpauc_jax.config import *\ndef get_config(arg=None):\n    {body}\n"
    )
    with pytest.raises(ConfigError, match=message) as caught:
        read(f"--config={tmp_path / 'own.py'}")
    assert "\n" not in str(caught.value)


VALUES = st.one_of(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.floats()).map(lambda numbers: str(tuple(numbers))),
    st.sampled_from(["", "none", "None", "()", "(1", "{}", "1e999", "9" * 5000, "~", "~x/y", "[[[[", "'", "true"]),
)


@settings(max_examples=150)
@given(st.sampled_from(command_line.setting_names()), VALUES)
@example("recommend.top_k", "2000000000")
@example("eval.recall_at", "(0,1)")
@example("seed", str(2**70))
def test_no_value_of_any_setting_leads_to_more_than_a_run_or_one_line(name, value):
    began = time.perf_counter()
    try:
        read(CONFIG, f"--config.{name}={value}")
    except ConfigError as error:
        assert "\n" not in str(error) and name.rpartition(".")[2] in str(error)
    assert time.perf_counter() - began < 1


def test_paths_may_begin_with_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text((ROOT / "configs" / "synthetic.py").read_text())
    command = read("--config=~/own.py", "--workdir=~/runs/x", "--config.data.path=~/d")
    assert (command.workdir, command.config.data.path) == (tmp_path / "runs" / "x", str(tmp_path / "d"))
    assert read("--config=~/own.py").workdir == pathlib.Path("runs/own")


def test_help_lists_the_modes_and_says_where_settings_are(capsys):
    for flag in ("--help", "-h", "--helpfull"):
        assert main(["main", flag]) == 0
        page = capsys.readouterr().out
        assert all(f"\n  {mode} " in page for mode in MODES)
        assert "docs/settings.md" in page and "--workdir" in page and "python -m wpauc_jax.config" in page


def test_absl_may_read_the_command_line(tmp_path):
    code = (
        "from absl import app, flags\n"
        "from wpauc_jax import main, modes\n"
        "modes.run = lambda config, folder: print('seed', config.seed, folder)\n"
        "flags.mark_flag_as_required('config')\n"
        "app.run(main.main)\n"
    )
    command = [sys.executable, "-c", code, CONFIG, "--config.seed=7", f"--workdir={tmp_path}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, f"seed 7 {tmp_path}\n"), found.stderr


def test_a_tracker_without_its_package_is_refused_before_anything_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["main", CONFIG, "--config.tracking=tensorboard", f"--workdir={tmp_path / 'run'}"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: tracking=tensorboard needs a package: pip install")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def circle(tmp_path_factory):
    """A configuration of a small world, for a training that never ends."""
    folder = tmp_path_factory.mktemp("circle")
    lines = [f"u{user}\ti{(user + step) % 12}\t{step}" for user in range(30) for step in range(6)]
    (folder / "circle.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n")
    (folder / "own.py").write_text(
        f"""
from wpauc_jax.config import *
def get_config(arg=None):
    return to_config_dict(Config(
        mode="sft",
        data=DataConfig(source="recbole", path={str(folder)!r}, k_core=0, max_history=4),
        catalog=CatalogConfig(embedding="cooccurrence", embedding_width=8, levels=2, codes=4),
        model=ModelConfig(num_layers=1, width=16, num_heads=2, num_kv_heads=1, head_dim=8, ffn_width=16),
        sft=SftConfig(batch_size=8, steps=10**9, evals=0, saves=0),
        rl=RlConfig(group_size=4, target_k=2), eval=EvalConfig(num_beams=10, batch_size=16),
    ))
"""
    )
    return folder / "own.py"


@pytest.fixture
def started():
    """The processes of a test; none outlives it."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(started, circle, workdir, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "wpauc_jax.main", f"--config={circle}", f"--workdir={workdir}", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started.append(process)
    return process


def output_until(process, text):
    """What a process says until a line holds `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def wait_for_steps(workdir, count):
    deadline = time.time() + 120
    while time.time() < deadline:
        if (workdir / "metrics.jsonl").exists() and (workdir / "metrics.jsonl").read_text().count("\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no steps")


def test_two_commands_on_one_directory_and_ctrl_c(started, circle, tmp_path):
    """The second ends with one line; the first goes on, and Ctrl-C ends it with another, leaving no lock."""
    workdir = tmp_path / "run"
    first = start(started, circle, workdir)
    wait_for_steps(workdir, 3)
    second = start(started, circle, workdir)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 1 and "Traceback" not in said
    assert f"error: {workdir} is in use by process {first.pid}" in said.splitlines()[-1]
    wait_for_steps(workdir, (workdir / "metrics.jsonl").read_text().count("\n") + 3)
    assert json.loads((workdir / ".lock").read_text())["pid"] == first.pid
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert said.splitlines()[-1] == f"interrupted: start the same command again to go on; {workdir} keeps what is done"
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
    assert not (workdir / ".lock").exists() and not [path for path in workdir.rglob(".*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["JAX ", "reading ", "preparing ", "building ", "compiling"])
def test_a_signal_at_any_stage_ends_in_one_line(started, circle, tmp_path, number, after):
    process = start(started, circle, tmp_path / "run")
    said = output_until(process, after)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert "Traceback" not in said + rest
    in_training = after == "compiling" and number == signal.SIGTERM  # which saves first
    assert process.returncode == (75 if in_training else 128 + number)
    assert "start the same command again" in rest.splitlines()[-1]
    assert not (tmp_path / "run" / ".lock").exists()
