"""Four sets in RecBole's format, prepared by others: office, toys, industrial and yelp. Benchmarks and docs/ use them.

    python -m wpauc_jax.main --config=configs/benchmarks.py:office --config.data.root=DATA

Without --workdir the run is kept in runs/benchmarks-office. DATA is the folder that holds office/office.inter.gz,
office/office.item.gz, toys/toys.inter.gz and so on. Nobody publishes these files as they are here: configs/amazon.py
and configs/yelp.py begin with what the publishers offer.

office, toys and yelp have no clock: only the order of each user's items is known. Their last two items are for
validation and test. industrial has a clock, so its rows are split 8:1:1 by time. The files are 5-core already.
industrial was cut to its later part after that, so no filter runs here. toys has no text, so its semantic ids are made
of which items occur together. Many places of yelp share a title, as the shops of a chain do.

The model is a small decoder trained from scratch, so do not expect the paper's numbers. docs/results.md has what came
out. yelp takes hours rather than minutes on two cores. Train several seeds (`--config.seed`) before you compare
objectives by `python -m wpauc_jax.compare`.
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
_MODEL = ModelConfig(num_layers=2, width=128, num_heads=4, num_kv_heads=2, head_dim=32, ffn_width=352)
_SFT = SftConfig(batch_size=32, epochs=15, evals=15, optim=OptimConfig(learning_rate=1e-3))
_RL = RlConfig(
    rows="latest",
    holdout=0.2,
    group_size=16,
    target_k=3,
    batch_size=64,
    epochs=1,
    optim=OptimConfig(learning_rate=2e-4, max_grad_norm=0.3),
)

SETS = {
    "office": Config(
        data=dataclasses.replace(_DATA, path="office"),
        catalog=_CATALOG,
        model=_MODEL,
        sft=_SFT,
        rl=_RL,
    ),
    "toys": Config(
        data=dataclasses.replace(_DATA, path="toys"),
        catalog=dataclasses.replace(_CATALOG, embedding="cooccurrence", codes=128),
        model=_MODEL,
        sft=_SFT,
        rl=_RL,
    ),
    "industrial": Config(
        data=dataclasses.replace(_DATA, path="industrial", split="chronological"),
        catalog=_CATALOG,
        model=_MODEL,
        sft=_SFT,
        rl=_RL,
    ),
    "yelp": Config(
        data=dataclasses.replace(_DATA, path="yelp"),
        catalog=dataclasses.replace(_CATALOG, codes=128),
        sft=SftConfig(batch_size=32, epochs=30, optim=OptimConfig(learning_rate=1e-3)),
        rl=_RL,
    ),
}


def get_config(arg: str | None = None) -> ConfigDict:
    if arg not in SETS:
        raise ConfigError(
            f"configs/benchmarks.py knows no data set {arg!r}; use --config=configs/benchmarks.py:NAME with one of "
            f"{', '.join(SETS)}"
        )
    return to_config_dict(SETS[arg])
