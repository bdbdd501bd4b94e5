"""ReRe, as its published scripts train it (arXiv 2510.12211): GRPO on beams with a reward for ranking.

    python -m wpauc_jax.main --config=configs/recipes/rere.py:0.5B-title --workdir=runs/rere

The argument is that of configs/recipes/tawin.py, and so are data, weights, SFT and what they need.

These are ReRe's: log-probabilities over the whole vocabulary; groups of 16 beams, the target not put in; the ranking
reward, which takes more from a miss that stands higher, in groups that hold their target; advantages by the unbiased
standard deviation plus 1e-4; a KL weight of 1e-3; a reference that takes .6 of the policy every 512 steps; 32 users a
step, two epochs at 1e-5; 50 beams in evaluation.

Expect hours of training on a GPU or TPU. No run at this size has been measured here.

What differs:
- Prompts are this project's. ReRe draws one of eleven sentences for each row, and the sentences speak of games. One
  sentence, the same in SFT, RL and evaluation, is a setting: `--config.prompt.instruction=...`.
- A prompt is not cut on its left. Its oldest items are dropped (`prompt.max_tokens`).
- Beams stay inside the catalog under log-probabilities that are not renormalised. So do ReRe's.
- Validation is 8 times, not twice, in RL. The best step by Recall@3 answers. ReRe answers with its last.
- AdamW keeps its moments in float32, not in pages of the host.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import Config, EvalConfig, to_config_dict
from wpauc_jax.configs.recipes.tawin import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    return to_config_dict(as_rere(recipe("rere.py", arg)))


def as_rere(base: Config) -> Config:
    """What ReRe changes; MiniOneRec begins with it."""
    rl = dataclasses.replace(
        base.rl, reward="ranking", weighting="none", epochs=2, ref_sync_steps=512, ref_sync_mix=0.6
    )
    cutoffs = EvalConfig(num_beams=50, batch_size=32, recall_at=(1, 3, 5, 10, 20, 50), ndcg_at=(3, 5, 10, 20, 50))
    return dataclasses.replace(base, scoring="vocab", rl=rl, eval=cutoffs)
