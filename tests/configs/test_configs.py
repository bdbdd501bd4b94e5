"""Every config loads, comes back as it was, and says which field is wrong."""

import pathlib
import sys
from unittest import mock

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from wpauc_jax.config import Config, ConfigError, DataConfig, from_config_dict, to_config_dict
from wpauc_jax.data.prepare import prepare
from wpauc_jax.stages.train import select_metric

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
ALL = [
    "quickstart.py",
    "benchmarks.py:office",
    "benchmarks.py:toys",
    "benchmarks.py:industrial",
    "benchmarks.py:yelp",
    "baselines.py:sasrec-movielens",
    "baselines.py:gsasrec-movielens",
    "baselines.py:hstu-office",
    "baselines.py:gru4rec-industrial",
    "baselines.py:caser-yelp",
    "baselines.py:tiger-toys",
    "amazon.py",
    "amazon.py:industrial",
    "amazon.py:office",
    "amazon.py:toys",
    "own.py",
    "recipes/tawin.py:0.5B-title",
    "recipes/tawin.py:7B-sid-yelp",
    "recipes/rere.py:0.5B-title",
    "recipes/minionerec.py:1.5B-sid-office",
    "recipes/sdpo.py:0.5B-sid-toys",
    "recipes/lcrec.py:0.5B-sid",
    "recipes/d3.py:1.5B-title-office",
    "recipes/bigrec.py:0.5B-title-toys",
    "smollm2.py",
    "yelp.py",
    "synthetic.py",
]
SETS = ("office", "toys", "industrial", "yelp")
QWEN = "SIZE one of 0.5B, 1.5B, 3B, 7B, ITEMS one of title, sid and SET one of industrial, office, toys, yelp"


def parse(name, *overrides):
    """What `main` makes of `--config=configs/NAME` and the overrides."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
    command = ["main", f"--config={CONFIGS / name}", *overrides]
    with mock.patch.object(sys, "argv", command):  # where config_flags looks for the fields to override
        values(command)
    return from_config_dict(values.config, Config)


@pytest.mark.parametrize("name", ALL)
def test_every_config_loads_and_comes_back(name):
    config = parse(name)
    assert isinstance(config, Config)
    assert from_config_dict(to_config_dict(config), Config) == config


def test_every_field_can_be_set_on_the_command_line():
    """A field that bears the name of a method of ConfigDict, such as items, cannot be."""

    def names(config):
        return {
            name for key, value in config.items() for name in (key, *(names(value) if hasattr(value, "keys") else ()))
        }

    assert not names(to_config_dict(Config())) & set(dir(ConfigDict))


def test_every_config_file_is_tested():
    files = [path for path in (*CONFIGS.glob("*.py"), *CONFIGS.glob("recipes/*.py")) if path.name != "__init__.py"]
    assert {str(path.relative_to(CONFIGS)) for path in files} == {name.partition(":")[0] for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_the_docstring_says_the_command(name):
    text = (CONFIGS / name.partition(":")[0]).read_text()
    assert f"python -m wpauc_jax.main --config=configs/{name.partition(':')[0]}" in text.split('"""')[1]
    assert "Expect" in text.split('"""')[1] or "expect" in text.split('"""')[1]


def test_what_the_data_sets_need():
    office, toys, industrial, yelp = (parse(f"benchmarks.py:{name}") for name in SETS)
    assert industrial.data.split == "chronological"
    assert {config.data.split for config in (toys, office, yelp)} == {"leave_one_out"}
    assert {config.catalog.ids for config in (office, toys, industrial, yelp)} == {"atomic"}
    for config in (toys, industrial, office, yelp):
        assert (config.data.max_history, config.rl.group_size, config.rl.target_k) == (10, 16, 3)


def test_the_papers_data_sets_are_prepared_by_one_protocol():
    """What the paper and its peers say, whatever the configuration and its model."""
    windows = {
        "industrial": ("1996-10-01", "2018-11-01"),
        "office": ("2016-10-01", "2018-11-01"),
        "toys": ("2016-10-01", "2018-11-01"),
        "yelp": ("2021-01-01", "2022-01-01"),
    }
    for name, window in windows.items():
        own = parse("yelp.py" if name == "yelp" else f"amazon.py:{name}")
        data = own.data
        assert (data.start, data.end) == window
        assert (data.split, data.k_core, data.max_history, data.repeats) == ("chronological", 5, 10, "keep")
        assert (data.require_title, data.drop_markup, data.title_words) == (True, True, 20)
        assert (own.rl.group_size, own.rl.target_k) == (16, 3)
        for items in ("title", "sid"):
            qwen = parse(f"recipes/tawin.py:0.5B-{items}-{name}")
            assert qwen.data == data
            assert qwen.catalog.ids == {"title": "title", "sid": "kmeans"}[items]
    assert parse("amazon.py") == parse("amazon.py:industrial")
    assert parse("recipes/tawin.py:3B-sid") == parse("recipes/tawin.py:3B-sid-industrial")
    categories = {name: parse(f"amazon.py:{name}").data.archive for name in list(windows)[:3]}
    assert categories == {
        "industrial": "amazon2018:Industrial_and_Scientific",
        "office": "amazon2018:Office_Products",
        "toys": "amazon2018:Toys_and_Games",
    }


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("amazon.py:books", "'books'.*industrial, office, toys"),
        ("amazon.py:", "''.*industrial, office, toys"),
        ("benchmarks.py", "None.*office, toys, industrial, yelp"),
        ("benchmarks.py:books", "'books'.*office, toys, industrial, yelp"),
        ("recipes/minionerec.py:0.5B-title", "ITEMS one of sid and SET"),
        *(
            (f"recipes/tawin.py:{arg}", QWEN)
            for arg in ("0.5B", "0.6B-sid", "0.5B-sids", "0.5B-sid-books", "0.5B-sid-toys-x")
        ),
    ],
)
def test_a_wrong_argument_lists_the_names(name, known):
    with pytest.raises(flags.IllegalFlagValueError, match=known):
        parse(name)


@pytest.mark.parametrize("name", ["quickstart.py:small", "own.py:small", "yelp.py:small"])
def test_an_argument_where_there_is_none_is_refused(name):
    with pytest.raises(flags.IllegalFlagValueError, match="takes no argument, got 'small'"):
        parse(name)


@pytest.mark.parametrize("field", ["rl.taget_k", "nothing", "sft.optim.rate"])
def test_a_wrong_field_is_named(field):
    with pytest.raises((AttributeError, KeyError), match=field.rpartition(".")[2]):
        parse("quickstart.py", f"--config.{field}=5")


@pytest.mark.parametrize(
    ("field", "value"), [("rl.target_k", "many"), ("sft.optim.learning_rate", "high"), ("rl.anchor", "x")]
)
def test_a_wrong_type_is_named(field, value):
    with pytest.raises((flags.IllegalFlagValueError, TypeError), match=field.rpartition(".")[2]):
        parse("quickstart.py", f"--config.{field}={value}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.rl.target_k=16", "rl.target_k=16 .* rl.group_size=16"),
        ("--config.eval.num_beams=5", "eval.num_beams=5 cannot give metrics at 10"),
        ("--config.rl.weighting=soft", "rl.weighting='soft' is unknown; choose one of tawin, none, window, opauc"),
        ("--config.mode=play", "mode='play' is unknown"),
        ("--config.data.max_history=0", "data.max_history=0 must be at least 1"),
    ],
)
def test_an_unusable_value_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        parse("quickstart.py", override)


def test_target_k_alone_aims_training_anew():
    assert parse("benchmarks.py:office").rl.anchor_rank == 2
    assert parse("benchmarks.py:office", "--config.rl.target_k=5").rl.anchor_rank == 4
    assert parse("benchmarks.py:office", "--config.rl.target_k=5", "--config.rl.anchor=1").rl.anchor_rank == 1


def test_root_holds_the_path_and_an_absolute_path_stands_alone():
    assert parse("benchmarks.py:toys", "--config.data.root=/data").data.location == "/data/toys"
    assert DataConfig(root="/data", path="/elsewhere/toys").location == "/elsewhere/toys"
    assert DataConfig(path="toys").location == "toys"
    assert DataConfig(root="/data").location == ""


def test_a_missing_root_says_what_to_set(tmp_path):
    config = parse("benchmarks.py:toys", f"--config.data.root={tmp_path}")
    with pytest.raises(ValueError, match=r"toys' does not exist; set it, or data\.root"):
        prepare(config.data, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_data_are_read_below_the_root(tmp_path):
    folder = tmp_path / "toys"
    folder.mkdir()
    lines = [f"u{u}\ti{(u + t) % 4}\t{t}" for u in range(4) for t in range(4)]
    (folder / "toys.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n")
    config = parse("benchmarks.py:toys", f"--config.data.root={tmp_path}")
    assert prepare(config.data, tmp_path / "prepared").num_items == 4


@pytest.mark.parametrize(
    ("overrides", "sft", "rl"),
    [
        ([], "ndcg@10", "recall@3"),
        (["--config.rl.target_k=5"], "ndcg@10", "recall@5"),  # which alone aims RL at another K
        (["--config.rl.target_k=4"], "ndcg@10", "ndcg@10"),  # not measured
        (["--config.eval.select=ndcg@3"], "ndcg@3", "ndcg@3"),
    ],
)
def test_the_best_checkpoint_is_that_of_the_stages_aim(overrides, sft, rl):
    config = parse("quickstart.py", *overrides)
    assert (select_metric(config, "sft"), select_metric(config, "rl")) == (sft, rl)
