"""What is checked once for every run: sizes against the mesh, the vocabulary against the catalog."""

import dataclasses

import jax
import pytest

from wpauc_jax.config import Config, ConfigError, MeshConfig, ModelConfig
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.stages.first_model import check_mesh, fitted, longest_row


@pytest.mark.parametrize("stage", ["sft", "rl", "eval"])
def test_each_stages_batches_are_checked_against_the_mesh(stage):
    config = Config(model=ModelConfig(vocab_size=64))
    settings = dataclasses.replace(getattr(config, stage), batch_size=12)
    with jax.set_mesh(make_mesh(MeshConfig())):
        check_mesh(config, config.model)
        with pytest.raises(ConfigError, match=rf"{stage}\.batch_size=12 does not divide into 8 parts"):
            check_mesh(dataclasses.replace(config, **{stage: settings}), config.model)


def test_a_vocabulary_is_fitted_to_the_catalog():
    assert fitted(ModelConfig(), 40, 12) == ModelConfig(vocab_size=40)
    assert fitted(ModelConfig(vocab_size=40), 40, 12).vocab_size == 40
    assert fitted(ModelConfig(vocab_size=64), 40, 12).vocab_size == 64
    with pytest.raises(ConfigError, match=r"model\.vocab_size=39 is too small: the catalog has 40 tokens"):
        fitted(ModelConfig(vocab_size=39), 40, 12)


def test_learned_places_are_fitted_to_the_longest_history():
    sasrec = ModelConfig(family="sasrec", num_heads=2)
    places = longest_row(Config(), 1)  # the beginning, ten items and the answer
    assert places == 12 and fitted(sasrec, 40, places).num_positions == 12
    assert fitted(dataclasses.replace(sasrec, num_positions=30), 40, places).num_positions == 30
    with pytest.raises(ConfigError, match=r"model\.num_positions=11 is too small: .* have up to 12 tokens"):
        fitted(dataclasses.replace(sasrec, num_positions=11), 40, places)
