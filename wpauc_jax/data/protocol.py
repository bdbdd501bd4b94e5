"""The four data sets of the paper, by the protocol of the paper and its peers.

1. Interactions come from a window of dates, in UTC. The value of a rating does not matter.
2. An item needs a title of at most 20 words. Markup is removed from titles.
3. Users and items with fewer than 5 interactions are removed, until none is left (the 5-core).
4. A sample is an interaction with up to 10 earlier ones of its user. All samples stand on one time line. The first 80%
   are for training, the next 10% for validation, and the rest for test. A repeated item counts again.

The windows are those of the files that the peers published. Their script goes back a year at a time until there are
enough items. Their Industrial set begins in 1996, although the name of one copy says otherwise: it holds reviews of
2006.
"""

import dataclasses

from wpauc_jax.config import DataConfig

_PAPER = DataConfig(
    k_core=5,
    require_title=True,
    drop_markup=True,
    title_words=20,
    split="chronological",
    max_history=10,
)
_AMAZON = dataclasses.replace(_PAPER, source="amazon", end="2018-11-01")

PAPER_DATA = {
    "industrial": dataclasses.replace(_AMAZON, archive="amazon2018:Industrial_and_Scientific", start="1996-10-01"),
    "office": dataclasses.replace(_AMAZON, archive="amazon2018:Office_Products", start="2016-10-01"),
    "toys": dataclasses.replace(_AMAZON, archive="amazon2018:Toys_and_Games", start="2016-10-01"),
    "yelp": dataclasses.replace(_PAPER, source="yelp", archive="yelp", start="2021-01-01", end="2022-01-01"),
}
