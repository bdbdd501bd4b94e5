"""D3 (arXiv 2406.14900): a language model of titles, whose search listens to a model that knows no text. SFT alone.

    python -m wpauc_jax.main --config=configs/amazon.py:industrial --workdir=runs/guide
    python -m wpauc_jax.main --config=configs/recipes/d3.py:0.5B-title --workdir=runs/d3 \
        --config.eval.guide=runs/guide

The argument is that of configs/recipes/tawin.py, and so are data, weights, SFT and what they need. The guide is a run
of the same data with one token an item, here that of configs/amazon.py; `--config.model.family=sasrec` makes it a
SASRec. Without `eval.guide` the model answers alone. `eval.guide_share` is how much the guide counts, D3's 1 - alpha.

Each step of a beam search adds the log of the guide's share: of the probability that it gives to the items below the
beam's prefix, the part that lies below the next token. There is no length penalty, so a token that must follow adds
nothing. An item's score is (1 - share) log p + share log q, with q the guide's softmax over the items.

Expect hours of training on a GPU or TPU. No run at this size has been measured here; docs/results.md has the same
search on a small model.

What differs: D3 mixes log-probabilities over the whole vocabulary, as `--config.scoring=vocab` does.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import to_config_dict
from wpauc_jax.configs.recipes.tawin import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    base = recipe("d3.py", arg)
    return to_config_dict(dataclasses.replace(base, rl=dataclasses.replace(base.rl, epochs=0.0)))
