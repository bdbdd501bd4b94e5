"""SmolLM2-135M on Office with titles as items: what each stage gives, on a draw of the test users, and what it costs.

    OPTIONS="--config=configs/smollm2.py --config.model.pretrained=FOLDER --config.data.root=DATA --workdir=RUN"
    python -m benchmarks.smollm2 --stage=zero $OPTIONS     # before any training
    python -m benchmarks.smollm2 --stage=sft $OPTIONS
    python -m benchmarks.smollm2 --stage=rl $OPTIONS       # from that SFT

Each command prints one line of JSON and adds it to RUN/stages.jsonl: Recall and NDCG of the stage and of popularity on
the same users; the perplexity of the target titles over the whole vocabulary, a token's and given the history; seconds
of training and of testing; and the process's peak memory.
"""

import json
import pathlib
import resource
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.config import Config, from_config_dict
from wpauc_jax.data.dataset import positions
from wpauc_jax.decode import Ranker
from wpauc_jax.evaluation.baselines import popularity_ranks
from wpauc_jax.evaluation.evaluate import evaluate
from wpauc_jax.models import Params
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.train import run_rl, run_sft
from wpauc_jax.stages.workspace import Workspace, open_workspace
from wpauc_jax.training.checkpoint import load_params

_CONFIG = config_flags.DEFINE_config_file("config", None, "a file of configs/", lock_config=True)
_STAGE = flags.DEFINE_enum("stage", None, ["zero", "sft", "rl"], "what to train before measuring")
_WORKDIR = flags.DEFINE_string("workdir", None, "where everything of this run is kept")
_USERS = flags.DEFINE_integer("users", 400, "test users that are drawn")


def perplexity(work: Workspace, params: Params, users: np.ndarray) -> float:
    """exp of the mean over tokens of -log p(token), over the vocabulary, of the users' target titles."""
    ranker = work.ranker("vocab")

    @jax.jit
    def score(ranker: Ranker, params: Params, batch: PromptBatch, items: jax.Array) -> jax.Array:
        return ranker.score(params, ranker.prefill(params, batch), items)

    total, count = 0.0, 0
    for batch in eval_batches(work.dataset, work.builder, users, work.config.eval.batch_size):
        target, valid = batch.target, batch.valid
        logps = score(ranker, params, batch.prompts, target[:, None].astype(np.int32))
        total -= float(np.asarray(logps)[valid].sum())
        count += int(work.catalog.lengths[target][valid].sum())
    return float(np.exp(total / count))


def measure(work: Workspace, params: Params, users: np.ndarray) -> dict[str, float]:
    """Recall, NDCG and perplexity of the stage; Recall of popularity."""
    config = work.config.eval
    start = time.perf_counter()
    batches = eval_batches(work.dataset, work.builder, users, config.batch_size)
    with Progress(len(users), "test", unit="users") as progress:
        ranks = evaluate(work.search(config.num_beams), params, batches, on_batch=progress.update)
    found = ranks.metrics(config.recall_at, config.ndcg_at)
    popular = popularity_ranks(work.dataset, users).metrics(config.recall_at, ())
    found |= {f"popularity {name}": value for name, value in popular.items()}
    found["standard error of recall@10"] = ranks.standard_error("recall@10")
    found["test_seconds"] = time.perf_counter() - start
    return found | {"perplexity": perplexity(work, params, users)}


def main(_: Sequence[str]) -> None:
    config, folder, stage = (
        from_config_dict(_CONFIG.value, Config),
        pathlib.Path(str(_WORKDIR.value)),
        str(_STAGE.value),
    )
    logging.set_verbosity(logging.WARNING)
    start = time.perf_counter()
    work = open_workspace(config, folder, lambda text: print(text, file=sys.stderr))
    line: dict[str, float | str] = {"stage": stage, "open_seconds": time.perf_counter() - start}
    trained = work.first_params
    if stage != "zero":
        start = time.perf_counter()
        steps = (run_sft if stage == "sft" else run_rl)(work)
        line |= {"steps": steps, "train_seconds": time.perf_counter() - start}
        trained = load_params(best_folder(work, stage), work.first_params)
    users = positions(work.dataset, "test")
    users = np.sort(np.random.default_rng(0).choice(users, min(_USERS.value, len(users)), replace=False))
    line |= {"users": len(users), **measure(work, work.frozen.join(trained), users)}
    line["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()})
    print(text)
    with (folder / "stages.jsonl").open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "stage", "workdir"])
    app.run(main)
