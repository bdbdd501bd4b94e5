"""Full-ranking evaluation: users a second by this project's beams, against Hugging Face's `generate`.

    python -m benchmarks.evaluate                               # the mini shape, 20 beams
    python -m benchmarks.evaluate --peer --peer-python=PYTHON   # and Hugging Face with PyTorch, in turns
    python -m benchmarks.evaluate --shape=qwen05 --batch=8 --turns=3 --peer --peer-batch=1

Ours is the program that validation and test run. The peer is `generate` with as many beams and
`prefix_allowed_tokens_fn`, a Python function that is asked for each beam and token (`benchmarks/peer_hf.py`). Prompts
are full. The last line is one JSON object: users a second of both, the median ratio of the turns and its spread.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from typing import Any

from benchmarks.measure import median, peak_memory_bytes, seconds
from benchmarks.peer import Peer
from benchmarks.setup import Bench, model_config, rl_config
from benchmarks.shapes import SHAPES
from wpauc_jax.evaluation.evaluate import make_search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON object: fields of the shape to replace")
    parser.add_argument("--model", type=json.loads, default={}, help="JSON object: fields of ModelConfig to replace")
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="users at a time")
    parser.add_argument("--batches", type=int, default=4, help="in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer-batch", type=int, default=8, help="users at a time of the peer")
    options = parser.parse_args()

    shape = dataclasses.replace(SHAPES[options.shape], **options.set, users=options.batch, group=options.beams)
    bench = Bench(shape, model_config(shape, **options.model), rl_config(shape))
    search, params, prompts = (
        make_search(bench.ranker, num_beams=shape.group),
        bench.new_params(),
        bench.batch(0).prompts,
    )
    seconds(lambda: search(params, prompts), 2)  # compiles
    ours: list[float] = []
    theirs: list[float] = []
    with contextlib.ExitStack() as stack:
        peer = None
        if options.peer:
            peer = Peer(options.peer_python, dataclasses.replace(shape, users=options.peer_batch), "--task=evaluate")
            stack.callback(peer.close)
            peer.step()
        for _ in range(options.turns):
            ours.append(shape.users / median(seconds(lambda: search(params, prompts), options.batches)))
            if peer:
                theirs.append(options.peer_batch / peer.step()["step_s"])
    print(f"ours  {median(ours):10.1f} users/s")
    result: dict[str, Any] = {"users_per_s": median(ours), "peak_memory_bytes": peak_memory_bytes()}
    if theirs:
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        print(
            f"peer  {median(theirs):10.1f} users/s, ratio {median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        )
        result |= {"peer_users_per_s": median(theirs), "ratio": median(ratios)}
        result |= {"ratio_spread": [min(ratios), max(ratios)]}
    print(json.dumps(result | {"shape": dataclasses.asdict(shape)}))


if __name__ == "__main__":
    main()
