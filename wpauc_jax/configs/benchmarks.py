"""Four sets in RecBole's format, prepared by others: office, toys, industrial and yelp. Benchmarks and docs/ use them.

    python -m wpauc_jax.main --config=configs/benchmarks.py:office --config.data.root=DATA

Without --workdir the run is kept in runs/benchmarks-office. DATA is the folder that holds office/office.inter.gz,
office/office.item.gz, toys/toys.inter.gz and so on. Nobody publishes these files as they are here: configs/amazon.py
and configs/yelp.py begin with what the publishers offer.

office, toys and yelp have no clock: only the order of each user's items is known. Their last two items are for
validation and test. industrial has a clock, so its rows are split 8:1:1 by time. The files are 5-core already.
industrial was cut to its later part after that, so no filter runs here. Many places of yelp share a title, as the shops
of a chain do.

An item is one token, and the model is a small decoder trained from scratch. For semantic ids give
`--config.catalog.ids=kmeans`; toys has no text, so its ids are made of which items occur together.

The settings stand in wpauc_jax/config/tuned.py. SFT was tuned on the validation rows of office, seed 0, by NDCG@10:
layers and width 1 x 128, 1 x 64, 1 x 256, 2 x 64, 2 x 128; dropout .1, .2, .3, .5; learning rate 5e-4, 1e-3, 2e-3,
3e-3; batches of 8, 32, 128 rows; weight decay .01, .1, 1; label smoothing 0, .1; an average of the parameters; weights
drawn with .005, .02, .1. Not every combination was tried. The best are alike (.082 to .086). More dropout, more depth
and faster learning make it worse.

industrial and toys were asked too, on their own validation rows, seed 0: dropout .2, .3, .5 with learning rates 5e-4,
1e-3, 2e-3, all nine, and width 256; industrial with width 64, and toys with two layers besides. Office's settings are
the best of both. yelp uses them, too. Its own rows were asked for dropout .1, .2, .3 and learning rates 1e-3 and 3e-3:
dropout .2 and .3 differ by less than the standard error, the others are behind. docs/results.md has what came out.

Expect SFT above the best ranking without training. docs/results.md has what came out. Train several seeds
(`--config.seed`) before you compare objectives by `python -m wpauc_jax.compare`.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import Config, ConfigError, DataConfig, to_config_dict
from wpauc_jax.config.tuned import CATALOG, MODEL, RL, SFT

_DATA = DataConfig(source="recbole", k_core=0, max_history=10)

SPLITS = {
    "office": "leave_one_out",
    "toys": "leave_one_out",
    "industrial": "chronological",
    "yelp": "leave_one_out",
}


def get_config(arg: str | None = None) -> ConfigDict:
    if arg not in SPLITS:
        raise ConfigError(
            f"configs/benchmarks.py knows no data set {arg!r}; use --config=configs/benchmarks.py:NAME with one of "
            f"{', '.join(SPLITS)}"
        )
    data = dataclasses.replace(_DATA, path=arg, split=SPLITS[arg])
    return to_config_dict(Config(data=data, catalog=CATALOG, model=MODEL, sft=SFT, rl=RL))
