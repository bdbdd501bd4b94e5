"""Settings by their full names: in place, and told apart."""

import pytest

from wpauc_jax.config import Config, ConfigError, RlConfig
from wpauc_jax.config.command_line import setting_names
from wpauc_jax.config.names import changes_between, values_of, with_settings


def test_settings_at_every_depth_are_changed_and_found_again():
    changes = {"seed": 3, "rl.anchor": 4, "rl.target_k": 5, "sft.optim.b1": 0.5, "eval.recall_at": (1, 5)}
    config = with_settings(Config(), changes)
    assert (config.rl.anchor, config.sft.optim.b1, config.rl.optim.b1) == (4, 0.5, 0.9)
    assert changes_between(Config(), config) == changes
    assert changes_between(config, config) == {} and with_settings(config, {}) == config
    assert list(values_of(config)) == setting_names()


def test_values_that_are_only_good_together_are_set_together():
    with pytest.raises(ConfigError, match="target_k=20 needs a negative"):
        with_settings(Config(), {"rl.target_k": 20})
    assert with_settings(Config(), {"rl.target_k": 20, "rl.group_size": 32}).rl == RlConfig(group_size=32, target_k=20)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rl.anchr", 1, "there is no setting 'rl.anchr'; did you mean rl.anchor"),
        ("rl.optim", 1, "rl.optim is a group of settings"),
        ("rl.optim.b1", 2.0, "^rl.optim.b1=2.0 must be below 1"),
        ("sft.optim.b1", 2.0, "^sft.optim.b1=2.0 must be below 1"),
        ("rl.faults.window", 1, "^rl.faults.window=1 must be at least 4"),
        ("data.synthetic.num_items", 0, "^data.synthetic.num_items=0 must be at least 2"),
        ("rl.batch_size", 0, "^rl.batch_size=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_named_in_full(name, value, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(Config(), {name: value})
