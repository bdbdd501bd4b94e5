"""BIGRec (arXiv 2308.08434): a language model writes a title freely; the items with the nearest titles are the list.

    python -m wpauc_jax.main --config=configs/recipes/bigrec.py:0.5B-title --workdir=runs/bigrec

The argument is that of configs/recipes/tawin.py, with `title` for ITEMS, and so are data, weights, SFT and what they
need. SFT is over the whole vocabulary. There is no RL. `eval.search=grounding` says how a list is made;
wpauc_jax/evaluation/grounding.py has the formula. `eval.popularity` is the paper's gamma. It is 0 here; tune it on
validation.

Expect hours of training on a GPU or TPU. No run at this size has been measured here.

What differs:
- The title is the model's likeliest continuation, token by token. BIGRec searches with four beams and takes the first.
- A text is read behind the sign that stands before every title in a prompt, not behind a beginning of its own.
- BIGRec trains on 1,024 rows or more of a set; here on all. Validation makes lists as the test does.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import to_config_dict
from wpauc_jax.configs.recipes.tawin import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    base = recipe("bigrec.py", arg, items=("title",))
    search = dataclasses.replace(base.eval, search="grounding")
    return to_config_dict(dataclasses.replace(base, rl=dataclasses.replace(base.rl, epochs=0.0), eval=search))
