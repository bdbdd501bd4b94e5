"""Amazon reviews in RecBole's format: toys, industrial or office.

    python -m wpauc_jax.main --config=configs/amazon.py:office --config.data.root=DATA --workdir=runs/office

DATA is the folder that holds office/office.inter.gz, office/office.item.gz, toys/toys.inter.gz and so on.

Expect RL to gain on SFT: it learns from the latest rows, which SFT has not seen. Do not expect TAWin to beat
`--config.rl.weighting=none` on one seed: the gain is of the size of one standard error. Train several seeds
(`--config.seed`) and compare them with `python -m wpauc_jax.compare`.

The group of 16, the ten items of history and Recall@3 as the aim are the paper's settings. `--config.rl.target_k=5`
aims at Recall@5. The model is a small decoder trained from scratch, so its numbers are not the paper's.

toys and office have no clock: only the order of each user's items is known. Their last two items are for test and
validation. industrial has a clock, so its rows are split 8:1:1 by time. The files are 5-core as published. industrial
was cut to its later part after that, so no filter runs here. toys has no text, so its semantic ids are made of which
items occur together.
"""

import dataclasses

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

_DATA = DataConfig(source="recbole", k_core=0, max_history=10, split="leave_one_out")
_CATALOG = CatalogConfig(levels=3, codes=64)

DATA = {
    "toys": dataclasses.replace(_DATA, path="toys"),
    "industrial": dataclasses.replace(_DATA, path="industrial", split="chronological"),
    "office": dataclasses.replace(_DATA, path="office"),
}
CATALOG = {
    "toys": dataclasses.replace(_CATALOG, embedding="cooccurrence", codes=128),
    "industrial": _CATALOG,
    "office": _CATALOG,
}


def get_config(arg: str | None = None) -> ConfigDict:
    if arg not in DATA:
        given = "has no data set of its own" if arg is None else f"knows no data set {arg!r}"
        raise ConfigError(f"configs/amazon.py {given}; use --config=configs/amazon.py:NAME with {', '.join(DATA)}")
    return to_config_dict(
        Config(
            data=DATA[arg],
            catalog=CATALOG[arg],
            model=ModelConfig(num_layers=2, width=128, num_heads=4, num_kv_heads=2, head_dim=32, ffn_width=352),
            sft=SftConfig(batch_size=32, epochs=15, evals=15, optim=OptimConfig(learning_rate=1e-3)),
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
