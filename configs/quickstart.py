"""MovieLens-100K from nothing: fetch, prepare, SFT, RL with TAWin, evaluation on every user.

    make quickstart
    python -m wpauc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Expect about two minutes on two CPU cores. At the end comes a table of Recall and NDCG for rankings without training,
SFT and RL. An item is one token, and films that the user has are left out. SFT beats the Markov chain by more than half
(NDCG@10). RL gains nothing here; with seed 0 its best parameters are those that it began with. The same command
again trains nothing: what is done is not done twice. The settings are those of configs/benchmarks.py, which says how
they were tuned.
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
            catalog=CatalogConfig(ids="atomic"),
            model=ModelConfig(num_layers=1, width=128, num_heads=4, num_kv_heads=4, head_dim=32, ffn_width=256),
            sft=SftConfig(
                batch_size=32,
                epochs=20,
                evals=20,
                patience=5,
                dropout=0.3,
                exclude_history=True,
                optim=OptimConfig(learning_rate=1e-3),
            ),
            rl=RlConfig(
                rows="same",
                batch_size=64,
                epochs=1,
                evals=4,
                optim=OptimConfig(learning_rate=1e-4, max_grad_norm=0.3),
            ),
        )
    )
