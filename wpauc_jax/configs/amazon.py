"""Amazon reviews of 2018 by the paper's protocol, from the publisher's files: industrial, office or toys.

    python -m wpauc_jax.main --config=configs/amazon.py
    python -m wpauc_jax.main --config=configs/amazon.py:office --workdir=runs/amazon-office

The first command takes industrial. A command fetches two files of the McAuley Lab, prepares them, trains and evaluates.

| NAME       | CATEGORY                  | CATEGORY_5.json.gz | meta_CATEGORY.json.gz | from       | before     |
|------------|---------------------------|--------------------|-----------------------|------------|------------|
| industrial | Industrial_and_Scientific |              11 MB |                 84 MB | 1996-10-01 | 2018-11-01 |
| office     | Office_Products           |             112 MB |                514 MB | 2016-10-01 | 2018-11-01 |
| toys       | Toys_and_Games            |          unmeasured, larger than office's | 2016-10-01 | 2018-11-01 |

The protocol: reviews of these dates, items with a title of at most 20 words without markup, users and items with at
least 5 reviews, 8:1:1 by time, the last 10 items as history. wpauc_jax/data/protocol.py states it in full.

A copy of your own: `--config.data.root=FOLDER` with the two files, packed or not, or `--config.data.path=FILE` with
reviews of any name X.json or X.json.gz and meta_X beside. Where no host answers, the error names the addresses and the
folder of the cache. Put the files there, and the same command runs without a network.

Expect sizes close to those that the paper's peers publish: 3,686 items of industrial, 3,459 of office (8,328 users,
4,866 test rows), 11,252 of toys. They need not be equal: the peers count words between single spaces, know only one
kind of markup, and take the last of several titles of an item. Do not expect the paper's numbers: the model is a small
decoder trained from scratch, and the paper's is a language model (configs/recipes/tawin.py). Its settings are those of
configs/benchmarks.py, which were tuned on another cut of Office. Nobody could fetch these files here, so they are not
tuned for these sets, and docs/results.md does not report them. An item is one token. For semantic ids give
`--config.catalog.ids=kmeans`.

The group of 16, the ten items of history and Recall@3 as the aim are the paper's; `--config.rl.target_k=5` aims at
Recall@5.
"""

from ml_collections import ConfigDict

from wpauc_jax.config import Config, ConfigError, to_config_dict
from wpauc_jax.config.tuned import CATALOG, MODEL, RL, SFT
from wpauc_jax.data.protocol import PAPER_DATA

SETS = ("industrial", "office", "toys")


def get_config(arg: str | None = None) -> ConfigDict:
    name = "industrial" if arg is None else arg
    if name not in SETS:
        raise ConfigError(
            f"configs/amazon.py knows no data set {name!r}; use --config=configs/amazon.py:NAME with one of "
            f"{', '.join(SETS)}"
        )
    return to_config_dict(Config(data=PAPER_DATA[name], catalog=CATALOG, model=MODEL, sft=SFT, rl=RL))
