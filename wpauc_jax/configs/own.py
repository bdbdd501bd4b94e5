"""Your own data from one CSV file: a template to copy and change.

    python -m wpauc_jax.main --config=configs/own.py --config.data.path=events.csv --workdir=runs/own

The file has a line for each interaction, under the header user_id,item_id,timestamp and, if there are titles, title:

    user_id,item_id,timestamp,title
    ann,b17,1714003200,Green tea
    ann,c4,1714089600,Teapot

A time is in seconds since 1970 or a date such as 2024-04-25 10:30:00. If your columns have other names, set
`data.user_column`, `data.item_column`, `data.time_column` and `data.title_column`. Titles stand in the answers. An item
is one token of the model.

Expect a table of Recall and NDCG for rankings without training, SFT and RL at the end, and lines that say which stage
beats the best of them. The settings are those of the quickstart, which fit about a hundred thousand interactions. Let
`--config.mode=doctor` examine the data before you trust the numbers.
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

# The file itself is given on the command line. Users and items with fewer than 5 interactions are left out (`k_core`).
DATA = DataConfig(max_history=20)
CATALOG = CatalogConfig(ids="atomic")
MODEL = ModelConfig(num_layers=1, width=128, num_heads=4, num_kv_heads=4, head_dim=32, ffn_width=256)
SFT = SftConfig(
    batch_size=32,
    epochs=20,
    evals=20,
    patience=5,
    dropout=0.3,
    exclude_history=True,
    optim=OptimConfig(learning_rate=1e-3),
)
RL = RlConfig(
    rows="same",
    batch_size=64,
    epochs=1,
    evals=4,
    optim=OptimConfig(learning_rate=1e-4, max_grad_norm=0.3),
)


def get_config(arg: str | None = None) -> ConfigDict:
    if arg:
        raise ConfigError(f"configs/own.py takes no argument, got {arg!r}")
    return to_config_dict(Config(data=DATA, catalog=CATALOG, model=MODEL, sft=SFT, rl=RL))
