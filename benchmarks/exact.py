"""Exact scores of a whole catalog against the RL step of as many users.

    python -m benchmarks.exact                      # the mini shape: 8 users, 3,686 items
    python -m benchmarks.exact --set='{"items": 10000}' --block-size=512

The two take turns in one run. The last line is one JSON object: seconds of each, their ratio, and how many nodes of the
trie the model ran for each user.
"""

import argparse
import dataclasses
import functools
import json

import jax

from benchmarks.measure import median, seconds
from benchmarks.rl_step import Runner
from benchmarks.setup import SCORING, Bench, model_config, rl_config
from benchmarks.shapes import SHAPES
from wpauc_jax.decode import score_catalogue
from wpauc_jax.models import Prompts, init

LIMIT = 6.0  # RL steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON: fields of benchmarks.shapes.Shape")
    parser.add_argument("--block-size", type=int, default=256, help="nodes of a user that are run at a time")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    shape = dataclasses.replace(SHAPES[options.shape], **options.set)
    bench = Bench(shape, model_config(shape), rl_config(shape))
    score = jax.jit(functools.partial(score_catalogue, bench.policy, scoring=SCORING, block_size=options.block_size))
    params, batch = init(bench.policy.config)[1], bench.batch(0)
    prompts = Prompts(batch.prompts.tokens, batch.prompts.lengths)
    runner = Runner(bench)
    runner.steps(2), seconds(lambda: score(params, prompts, bench.trie), 1)  # compile
    steps, scores = [], []
    for _ in range(options.repeats):
        steps += runner.steps(1)
        scores += seconds(lambda: score(params, prompts, bench.trie), 1)
    ratio = median(scores) / median(steps)
    nodes = [len(nodes) for nodes in bench.trie.inner[1:]]
    print(f"{shape.items:,} items, {shape.users} users, nodes run at depths 1, 2, ...: {nodes}")
    print(f"exact scores {median(scores):.3f} s, RL step {median(steps):.3f} s")
    result = {"exact_s": median(scores), "step_s": median(steps), "steps": ratio, "nodes": sum(nodes)}
    print(json.dumps(result | {"shape": dataclasses.asdict(shape), "ok": ratio < LIMIT}))


if __name__ == "__main__":
    main()
