"""MovieLens-100K from nothing: fetch, prepare, SFT, RL with TAWin, evaluation on every user.

    make quickstart
    python -m wpauc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Expect about two minutes on two CPU cores. At the end comes a table of Recall and NDCG for popularity, SFT and RL. SFT
has about twice the Recall@10 of popularity. RL moves Recall@10 by less than one standard error, which is .01 with 943
users. The same command again trains nothing: what is done is not done twice.
"""

from ml_collections import ConfigDict

from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RlConfig,
    SftConfig,
    to_config_dict,
)


def get_config(arg: str | None = None) -> ConfigDict:
    if arg:
        raise ConfigError(f"configs/quickstart.py takes no argument, got {arg!r}")
    return to_config_dict(
        Config(
            data=DataConfig(archive="ml-100k", max_history=20),
            catalog=CatalogConfig(levels=3, codes=64),
            model=ModelConfig(num_layers=2, width=64, num_heads=4, num_kv_heads=2, head_dim=16, ffn_width=176),
            sft=SftConfig(batch_size=16, epochs=6, evals=6, optim=OptimConfig(learning_rate=3e-3)),
            rl=RlConfig(
                rows="latest",
                holdout=0.1,
                batch_size=64,
                epochs=1,
                evals=4,
                optim=OptimConfig(learning_rate=1e-4, max_grad_norm=0.3),
            ),
        )
    )
