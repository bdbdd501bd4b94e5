"""Yelp visits in RecBole's format.

    python -m wpauc_jax.main --config=configs/yelp.py --config.data.root=DATA --workdir=runs/yelp

DATA is the folder that holds yelp/yelp.inter.gz and yelp/yelp.item.gz.

Expect hours rather than minutes on two cores, and the lowest Recall of the four data sets: this is the largest of them,
with 20,033 items. Many places share a title, as the shops of a chain do. So the semantic ids are made of which places
occur together as well as of text. The file has no clock, only the order of each user's visits. The last two visits are
for test and validation.
"""

from ml_collections import ConfigDict

from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    OptimConfig,
    RlConfig,
    SftConfig,
    to_config_dict,
)


def get_config(arg: str | None = None) -> ConfigDict:
    if arg:
        raise ConfigError(f"configs/yelp.py takes no argument, got {arg!r}")
    return to_config_dict(
        Config(
            data=DataConfig(source="recbole", path="yelp", k_core=0, max_history=10, split="leave_one_out"),
            catalog=CatalogConfig(levels=3, codes=128),
            sft=SftConfig(batch_size=32, epochs=30, optim=OptimConfig(learning_rate=1e-3)),
            rl=RlConfig(
                rows="latest",
                holdout=0.2,
                group_size=16,
                target_k=3,
                batch_size=64,
                epochs=1,
                optim=OptimConfig(learning_rate=2e-4, max_grad_norm=0.3),
            ),
        )
    )
