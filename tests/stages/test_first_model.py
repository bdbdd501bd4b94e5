"""What is checked once for every run: sizes against the mesh, the vocabulary against the catalog."""

import dataclasses

import jax
import pytest

from wpauc_jax.config import Config, ConfigError, MeshConfig, ModelConfig
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.stages.first_model import check_mesh, fitted


@pytest.mark.parametrize("stage", ["sft", "rl", "eval"])
def test_each_stages_batches_are_checked_against_the_mesh(stage):
    config = Config(model=ModelConfig(vocab_size=64))
    settings = dataclasses.replace(getattr(config, stage), batch_size=12)
    with jax.set_mesh(make_mesh(MeshConfig())):
        check_mesh(config, config.model)
        with pytest.raises(ConfigError, match=rf"{stage}\.batch_size=12 does not divide into 8 parts"):
            check_mesh(dataclasses.replace(config, **{stage: settings}), config.model)


def test_a_vocabulary_is_fitted_to_the_catalog():
    assert fitted(ModelConfig(), 40).vocab_size == 40
    assert fitted(ModelConfig(vocab_size=40), 40).vocab_size == 40
    assert fitted(ModelConfig(vocab_size=64), 40).vocab_size == 64
    with pytest.raises(ConfigError, match=r"model\.vocab_size=39 is too small: the catalog has 40 tokens"):
        fitted(ModelConfig(vocab_size=39), 40)
