"""The command `wpauc`, and what a work directory remembers for it."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tomllib

import pytest

import wpauc_jax
from wpauc_jax import __main__ as commands
from wpauc_jax.config import Config, ConfigError, ModelConfig, RlConfig, command_line
from wpauc_jax.config.run import MODES

ROOT = pathlib.Path(__file__).parents[1]


def read(*arguments):
    return command_line.read(["main", *arguments])


@pytest.fixture
def seen(monkeypatch):
    """What the programs behind the commands are called with."""
    calls = []
    for program in {command.program for command in commands.COMMANDS.values()}:
        module = sys.modules[program().__module__]
        monkeypatch.setattr(module, "main", lambda words: calls.append(words) or 0)
    return calls


def test_every_mode_is_a_command():
    assert {command.mode for command in commands.COMMANDS.values() if command.mode} == set(MODES)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"wpauc": "wpauc_jax.__main__:main"}


def test_help_and_version_come_without_jax():
    code = (
        "import sys; from wpauc_jax.__main__ import main; main(['wpauc', *sys.argv[1:]]); "
        "assert 'jax' not in sys.modules"
    )
    for word, expected in (("--help", "\n  recommend "), ("--version", wpauc_jax.__version__)):
        found = subprocess.run([sys.executable, "-c", code, word], cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert expected in found.stdout


def test_a_command_is_a_mode_and_may_shorten_flags(seen):
    assert commands.main(["wpauc", "recommend", "--workdir=RUN", "--input=x.jsonl", "--config.seed=3"]) == 0
    assert commands.main(["wpauc", "compare", "a.npz", "b.npz"]) == 0
    assert seen == [
        ["wpauc", "--config.mode=recommend", "--workdir=RUN", "--config.recommend.input=x.jsonl", "--config.seed=3"],
        ["wpauc", "a.npz", "b.npz"],
    ]


def test_an_unknown_command_is_one_line(capsys):
    assert commands.main(["wpauc", "recomend"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no command 'recomend'; use one of train, ")


def remember(folder, config):
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))


def test_a_run_remembers_its_settings(tmp_path):
    config = Config(model=ModelConfig(width=64), rl=RlConfig(anchor=4), exclude_history="on", seed=5)
    remember(tmp_path, config)
    assert read(f"--workdir={tmp_path}").config == config
    given = read("--workdir", str(tmp_path), "--config.mode=evaluate", "--config.eval.num_beams=50").config
    assert given == dataclasses.replace(config, mode="evaluate", eval=dataclasses.replace(config.eval, num_beams=50))


def test_an_earlier_versions_run_is_read_in_todays_spelling(tmp_path):
    record = dataclasses.asdict(Config())
    del record["exclude_history"], record["rl"]["estimator"]
    record["sft"]["loss"] = "catalogue"
    (tmp_path / "config.json").write_text(json.dumps(record))
    config = read(f"--workdir={tmp_path}").config
    assert (config.exclude_history, config.sft.loss) == ("off", "catalog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json cannot be read \(JSONDecodeError: .*\); give --config, too"),
        ("[]", r"config\.json: it holds no settings; give --config, too"),
        ('{"model": {"widht": 3}}', r"there is no setting 'model\.widht'; did you mean model\.width.*; give --config"),
        ('{"model": {"width": "x"}}', r"config\.json: model\.width='x' must be a whole number; give --config, too"),
    ],
)
def test_a_damaged_memory_is_one_line(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read(f"--workdir={tmp_path}")
    assert "\n" not in str(caught.value)


def test_without_a_run_a_configuration_is_needed(tmp_path):
    with pytest.raises(ConfigError, match=r"--config is missing; .* or the --workdir of a run"):
        read(f"--workdir={tmp_path}")


def test_a_configuration_of_the_package_is_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "configs/quickstart.py", str(ROOT / "configs" / "quickstart.py")):
        command = read(f"--config={name}")
        assert command.config.data.archive == "ml-100k" and command.workdir == pathlib.Path("runs/quickstart")
    assert read("--config=benchmarks:office").config.data.path == "office"
    own = (ROOT / "configs" / "synthetic.py").read_text()
    (tmp_path / "quickstart.py").write_text(own)
    assert read("--config=quickstart.py").config.data.source == "synthetic"  # a file of one's own comes first
    with pytest.raises(ConfigError, match="--config='quikstart' does not exist; give a file of configs/"):
        read("--config=quikstart")


def test_settings_may_stand_before_the_file_that_they_change(seen):
    for words in (["--config=quickstart", "--config.seed=3"], ["--config.seed=3", "--config", "quickstart"]):
        assert read(*words).config.seed == 3
    commands.main(["wpauc", "sft", "--config=quickstart", "--config.seed=3"])
    command = command_line.read(seen[0])
    assert (command.config.mode, command.config.seed, command.config.data.archive) == ("sft", 3, "ml-100k")
