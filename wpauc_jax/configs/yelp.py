"""The Yelp Open Dataset by the protocol of the paper's peers: the reviews of 2021.

    python -m wpauc_jax.main --config=configs/yelp.py --config.data.path=FOLDER --workdir=runs/yelp

FOLDER holds yelp_academic_dataset_review.json (about 5 GB) and yelp_academic_dataset_business.json, packed by gzip or
not. Yelp gives them to people who accept its terms: https://business.yelp.com/data/resources/open-dataset/. No program
can fetch them. Without `data.path` they are looked for in the folder yelp of the cache, or of `--config.data.root`.

The protocol: reviews from 2021-01-01 and before 2022-01-01, users and places with at least 5 of them, 8:1:1 by time,
the last 10 places as history. wpauc_jax/data/protocol.py states it in full. A title is the name with the address behind
it, as the shops of a chain share a name; titles of more than 20 words are left out.

Expect about 8,785 places, as many as the peers publish. They count the words of the name only, so their number need not
be the same. Do not expect the paper's numbers: the model is a small decoder trained from scratch. Its settings are not
tuned for this set yet.
"""

from ml_collections import ConfigDict

from wpauc_jax.config import Config, ConfigError, to_config_dict
from wpauc_jax.config.tuned import CATALOG, MODEL, RL, SFT
from wpauc_jax.data.protocol import PAPER_DATA


def get_config(arg: str | None = None) -> ConfigDict:
    if arg:
        raise ConfigError(f"configs/yelp.py takes no argument, got {arg!r}")
    return to_config_dict(Config(data=PAPER_DATA["yelp"], catalog=CATALOG, model=MODEL, sft=SFT, rl=RL))
