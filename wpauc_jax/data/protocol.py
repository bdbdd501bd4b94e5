"""The four data sets of the paper, by the protocol of the paper and its peers.

1. A window of dates, UTC. Reviews of any rating count.
2. Items need a title, without markup, of at most 20 words.
3. The 5-core of what is left: users and items with fewer than 5 interactions go, until none has.
4. A sample is an interaction with the up to 10 before it of its user. Of all samples on the common time line the first
   80% are for training, the next 10% for validation, the rest for test. What a user meets again counts again.

The windows are those of the peers' published files, whose script goes back a year at a time until enough items are
left. Their Industrial set begins in 1996, whatever the name of a copy says: it holds reviews of 2006.
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
