"""A world whose law is known, so that the table has a last word: the best ranking there is.

    python -m wpauc_jax.main --config=configs/synthetic.py --workdir=runs/synthetic

The steps are explained in docs/tutorial.md. Users are of several kinds, which only the whole history tells; the row
`optimum` ranks by the true probability. Expect SFT well above popularity and most of the way to the optimum, and RL
with TAWin, on rows that SFT has not seen, between the two.
`--config.data.synthetic.num_users=20000` brings both nearer.
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
    SyntheticConfig,
    to_config_dict,
)


def get_config(arg: str | None = None) -> ConfigDict:
    if arg:
        raise ConfigError(f"configs/synthetic.py takes no argument, got {arg!r}")
    return to_config_dict(
        Config(
            data=DataConfig(source="synthetic", k_core=0, max_history=10, synthetic=SyntheticConfig()),
            catalog=CatalogConfig(levels=2, codes=32),
            model=ModelConfig(num_layers=1, width=64, num_heads=2, num_kv_heads=2, head_dim=32, ffn_width=128),
            sft=SftConfig(batch_size=64, epochs=20, evals=5, optim=OptimConfig(learning_rate=5e-3)),
            rl=RlConfig(
                rows="latest",
                holdout=0.2,
                batch_size=64,
                epochs=1,
                evals=4,
                optim=OptimConfig(learning_rate=2e-4, max_grad_norm=0.3),
            ),
        )
    )
