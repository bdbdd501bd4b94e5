"""A run remembers what it is: later modes with other settings of the model or of the ranking are refused by name."""

import dataclasses
import json
import shutil
import tarfile

import pytest

from tests.stages.test_old_run import ARCHIVE, CONFIG, content, folder  # noqa: F401 - the fixture of its work directory
from wpauc_jax import modes
from wpauc_jax.config import Config, ConfigError, ExportConfig, PromptConfig, RecommendConfig, from_config_dict
from wpauc_jax.config.fields import to_config_dict
from wpauc_jax.stages import evaluate as evaluation
from wpauc_jax.stages import recommender as recommenders
from wpauc_jax.stages import trained
from wpauc_jax.stages.run import open_run
from wpauc_jax.training.checkpoint import BestCheckpoint, load_best, trained_with


def changed(name, value) -> Config:
    """CONFIG with another value of the setting of that dotted name."""
    settings = to_config_dict(CONFIG)
    *sections, last = name.split(".")
    inner = settings
    for section in sections:
        inner = inner[section]
    with inner.unlocked():
        inner[last] = value
    return from_config_dict(settings, Config)


@pytest.fixture
def histories(tmp_path):
    path = tmp_path / "histories.jsonl"
    path.write_text('{"user": "u", "history": ["3", "1"]}\n')
    return path


def later(mode, config, folder, histories) -> int | None:  # noqa: F811
    """A later mode as the command line calls it."""
    settings = RecommendConfig(input=str(histories), top_k=50)
    return modes.run(dataclasses.replace(config, mode=mode, recommend=settings), folder)


ANSWERING = {
    "scoring": "vocab",
    "seed": 4,
    "data.max_history": 3,
    "model.rope_theta": 5e5,
    "model.norm_eps": 1e-3,
    "model.attention_bias": False,
    "model.num_heads": 1,
    "model.head_dim": 8,
    "model.dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The run of the old work directory, opened once."""
    place = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    return open_run(CONFIG, place / "old_run", lambda text: None)


def opened_with(old, name, value):
    """What `open_run` makes of CONFIG with another value: only the model's own settings are read off the model."""
    config, policy = changed(name, value), old.policy
    if name.startswith("model."):
        field = {name.removeprefix("model."): value}
        policy = dataclasses.replace(policy, config=dataclasses.replace(policy.config, **field))
    return dataclasses.replace(old, config=config, policy=policy)


@pytest.mark.parametrize("name", ANSWERING)
def test_a_setting_that_changes_answers_is_named_with_both_values(old, name):
    value, before = ANSWERING[name], config_value(name)
    run = opened_with(old, name, value)
    for stage in ("sft", "rl"):
        assert trained.changes(run, stage) == [f"{name}: {before!r} then, {value!r} now"]


def config_value(name):
    value = CONFIG
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eval.batch_size", 4),
        ("eval.num_beams", 12),
        ("model.remat", "layer"),
        ("rl.group_size", 5),
        ("prompt.widths", (3,)),
    ],
)
def test_what_changes_no_answer_may_differ(old, name, value):
    assert trained.changes(opened_with(old, name, value), "rl") == []


@pytest.mark.parametrize("mode", ["evaluate", "recommend", "export"])
def test_later_modes_refuse_in_one_line_and_touch_nothing(folder, histories, mode, monkeypatch):  # noqa: F811
    monkeypatch.setattr(evaluation, "load_best", lambda *_: pytest.fail("parameters were loaded"))
    monkeypatch.setattr(recommenders, "load_best", lambda *_: pytest.fail("parameters were loaded"))
    before, results = content(folder), (folder / "results.json").read_bytes()
    config = dataclasses.replace(changed("model.rope_theta", 5e5), scoring="vocab")
    with pytest.raises(ConfigError) as caught:
        later(mode, config, folder, histories)
    text = str(caught.value)
    assert "model.rope_theta: 10000.0 then, 500000.0 now; scoring: 'constrained' then, 'vocab' now" in text
    assert "\n" not in text and "allow_changes" in text
    assert content(folder) == before and (folder / "results.json").read_bytes() == results


def test_the_doctor_calls_it_a_problem(folder, histories, capsys):  # noqa: F811
    assert later("doctor", changed("model.norm_eps", 1e-3), folder, histories) == 1
    assert "model.norm_eps: 1e-06 then, 0.001 now" in " ".join(capsys.readouterr().out.split())


def test_what_is_allowed_stands_in_every_output(folder, histories, capsys, tmp_path):  # noqa: F811
    config = dataclasses.replace(changed("model.norm_eps", 1e-3), allow_changes=True)
    config = dataclasses.replace(config, export=ExportConfig(path=str(tmp_path / "model")))
    difference = "model.norm_eps: 1e-06 then, 0.001 now"
    for mode in ("evaluate", "recommend", "export"):
        assert not later(mode, config, folder, histories)
        assert f"trained with other settings: {difference}" in capsys.readouterr().err
    results = json.loads((folder / "results.json").read_text())
    assert results["changes"] == {"sft": [difference], "rl": [difference]}
    answer = json.loads((folder / "recommendations.jsonl").read_text())
    assert (answer["stage"], answer["changes"], len(answer["items"])) == ("rl", [difference], 12)
    prompt = json.loads((tmp_path / "model" / "prompt.json").read_text())
    assert (prompt["stage"], prompt["step"], prompt["changes"]) == ("rl", 0, [difference])


def test_a_fingerprint_is_explained_by_the_settings_behind_it():
    before = {"prompt": {"fingerprint": "a"}, "data": {"fingerprint": "x"}, "seed": 0}
    now = {"prompt": {"fingerprint": "b"}, "data": {"fingerprint": "x"}, "seed": 0}
    settings = trained.settings_of(CONFIG)
    other = dataclasses.replace(CONFIG, prompt=PromptConfig(instruction="Say more:", widths=(9,)))
    current = trained.settings_of(other)
    old = CONFIG.prompt.instruction
    assert trained._explained(before, now, settings, current) == [f"prompt.instruction: {old!r} then, 'Say more:' now"]
    assert trained._explained(before, now, {}, current) == ["prompt.fingerprint: 'a' then, 'b' now"]
    assert trained._explained(before, before, settings, current) == []


def test_the_best_parameters_carry_it_and_outlive_the_states(folder):  # noqa: F811
    """A directory of an earlier version has it beside its resumable states only."""
    record = trained_with(folder / "rl")
    assert record["identity"]["scoring"] == "constrained" and "settings" not in record
    run = open_run(CONFIG, folder, lambda text: None)
    params, found = load_best(folder / "rl" / "best", run.first_params)
    shutil.rmtree(folder / "rl")
    assert trained_with(folder / "rl") == {}
    told = {"identity": {"scoring": "vocab"}, "settings": trained.settings_of(CONFIG)}
    with BestCheckpoint(folder / "rl" / "best", trained_with=told) as best:
        best.save(7, params, found.metrics)
    assert trained_with(folder / "rl")["identity"] == {"scoring": "vocab"}
    assert load_best(folder / "rl" / "best", run.first_params)[1].step == 7
    assert "scoring: 'vocab' then, 'constrained' now" in trained.changes(run, "rl")


def test_rl_begins_from_no_sft_of_other_settings(folder):  # noqa: F811
    shutil.rmtree(folder / "rl")
    for name, value in (("model.rope_theta", 5e5), ("sft.loss", "lm"), ("rl.rows", "latest")):
        with pytest.raises(ConfigError, match=rf"sft.best was trained with other settings: .*{name}: "):
            modes.run(dataclasses.replace(changed(name, value), mode="rl"), folder)
    assert not (folder / "rl").exists()
