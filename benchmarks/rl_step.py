"""One RL step: rollout, reference and update, timed apart and whole, against this machine's matrix-product peak.

    python -m benchmarks.rl_step                                # the mini shape; --shape=qwen05
    python -m benchmarks.rl_step --config=configs/benchmarks.py:office  # a run's model, prompts, batch and objective
    python -m benchmarks.rl_step --set='{"group": 64}'          # any field of benchmarks.shapes.Shape
    python -m benchmarks.rl_step --model='{"remat": "layer"}'   # any field of ModelConfig; --rl: of RlConfig
    python -m benchmarks.rl_step --peer --peer-python=PYTHON    # and Hugging Face with PyTorch, in turns
    python -m benchmarks.rl_step --peer=tunix --peer-python=PYTHON  # or Tunix

The peer's interpreter needs torch and transformers: `pip install '.[bench]'` puts them into this one. Tunix needs an
environment of its own: `pip install google-tunix==0.1.7`. The last line is one JSON object. Rollout, reference and
update are programs of their own, each with its own pass over the prompts; the step shares one pass between rollout and
update, so that it takes less than their sum. On Linux, put GLIBC_TUNABLES=glibc.malloc.hugetlb=1 before either: large
pages, for the peer too.
"""

import argparse
import dataclasses
import json
import sys
import time
from typing import Any

import jax

from benchmarks.measure import matmul_peak, median, peak_memory_bytes, seconds
from benchmarks.memory import release_memory
from benchmarks.peer import PEERS, Peer
from benchmarks.setup import Bench, load_config, model_config, part_seconds, rl_config, shape_of
from benchmarks.shapes import SHAPES
from wpauc_jax.training.state import TrainState

WARM_UP = 2  # steps
PARTS = ("rollout_s", "reference_s", "update_s", "step_s")


class Runner:
    """Steps, one after another, and their seconds."""

    def __init__(self, bench: Bench):
        self._bench, self._seed = bench, 0
        self._state: TrainState | None = None

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps. The first call compiles."""
        if self._state is None:
            self._state = self._bench.new_state()
            jax.block_until_ready(self._state)
            release_memory()
        return seconds(self._one, count)

    def drop(self) -> None:
        """Gives back the state's memory; the next call of `steps` makes a new one."""
        self._state = None
        release_memory()

    def _one(self) -> Any:
        assert self._state is not None
        batch = self._bench.batch(self._seed)
        self._seed += 1
        self._state, metrics = self._bench.run(self._state, batch)
        return self._state, metrics


def mini_step_seconds(repeats: int = 10) -> tuple[float, int]:
    """(median seconds of the mini shape's step, its users)."""
    shape = SHAPES["mini"]
    runner = Runner(Bench(shape, model_config(shape), rl_config(shape)))
    runner.steps(WARM_UP)
    return median(runner.steps(repeats)), shape.users


def measure(bench: Bench, repeats: int, *, parts: bool = True) -> dict[str, Any]:
    """The step's numbers, by their names in the JSON line."""
    flops, peak = bench.flops, matmul_peak()
    start = time.perf_counter()
    compiled = bench.compile()
    result: dict[str, Any] = {"compile_s": time.perf_counter() - start}
    runner = Runner(bench)
    runner.steps(WARM_UP)
    result["step_s"] = median(runner.steps(repeats))
    result["peak_memory_bytes"] = peak_memory_bytes()
    runner.drop()
    if parts:
        result |= part_seconds(bench, repeats)
    peak = max(peak, matmul_peak())
    return result | {
        "users_per_s": bench.shape.users / result["step_s"],
        "useful_flops": flops.step,
        "compiler_flops": (compiled.cost_analysis() or {}).get("flops"),
        "matmul_peak_flops_per_s": peak,
        "matmul_peak_share": flops.step / result["step_s"] / peak,
        "shape": dataclasses.asdict(bench.shape),
    }


def alternate(bench: Bench, peer: Peer, rounds: int, *, peer_users: int, peer_warm_up: int) -> dict[str, Any]:
    """Both in turns; the ratio of users per second in each round, its median and its spread."""
    runner = Runner(bench)
    for _ in range(peer_warm_up):
        peer.step()
    ours, theirs = [], []
    for _ in range(rounds):
        runner.steps(WARM_UP)
        ours.append(median(runner.steps(3)))
        runner.drop()  # so that both fit into memory where the model is large
        theirs.append(peer.step())
    ratios = [
        (bench.shape.users / mine) / (peer_users / other["step_s"]) for mine, other in zip(ours, theirs, strict=True)
    ]
    return {
        "ratio": median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "peer_users": peer_users,
        "peer": {name: median([row[name] for row in theirs]) for name in theirs[0]},
    }


def table(result: dict[str, Any]) -> str:
    """The numbers for people."""
    users = result["shape"]["users"]
    rows = [("what", "seconds", "users/s")]
    timed = [(name, users, result[name]) for name in PARTS if name in result]
    timed += [(f"peer {name}", result["peer_users"], value) for name, value in result.get("peer", {}).items()]
    rows += [(name[:-2], f"{value:.4f}", f"{count / value:.2f}") for name, count, value in timed]
    lines = [f"{a:<16}{b:>10}{c:>10}" for a, b, c in rows]
    lines.append(
        f"useful {result['useful_flops'] / 1e9:.1f} GFLOP a step, {result['matmul_peak_share']:.2f} of "
        f"{result['matmul_peak_flops_per_s'] / 1e9:.0f} GFLOP/s; peak memory {result['peak_memory_bytes'] / 2**30:.2f} "
        f"GiB; compiled in {result['compile_s']:.1f} s"
    )
    if "ratio" in result:
        low, high = result["ratio_spread"]
        lines.append(f"{result['ratio']:.1f} times the peer's users per second ({low:.1f} to {high:.1f})")
    return "\n".join(lines)


def new_bench(options: argparse.Namespace) -> Bench:
    """What the command line asks for. A configuration's prompts are full: `data.max_history` items."""
    if options.config:
        config = load_config(options.config)
        shape = dataclasses.replace(shape_of(config), **options.set)
        model = dataclasses.replace(config.model, vocab_size=shape.vocab, **options.model)
        changes = {"group_size": shape.group, "batch_size": shape.users} | options.rl
        objective = dataclasses.replace(config.rl, **changes)
    else:
        shape = dataclasses.replace(SHAPES[options.shape], **options.set)
        model, objective = model_config(shape, **options.model), rl_config(shape, **options.rl)
    return Bench(shape, model, objective, trim=not options.forced_tails)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--config", help="a configuration file, in place of a shape")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON object: fields of the shape to replace")
    parser.add_argument("--model", type=json.loads, default={}, help="JSON object: fields of ModelConfig to replace")
    parser.add_argument("--rl", type=json.loads, default={}, help="JSON object: fields of RlConfig to replace")
    parser.add_argument("--forced-tails", action="store_true", help="run the model on tokens that are certain, too")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--no-parts", action="store_true", help="time the whole step only")
    parser.add_argument("--peer", nargs="?", const="hf", choices=PEERS)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer-users", type=int, help="the peer's batch, where the shape's does not fit into memory")
    parser.add_argument("--peer-releases-memory", action="store_true", help="between turns, where both do not fit")
    parser.add_argument("--peer-warm-up", type=int, default=WARM_UP)
    parser.add_argument("--rounds", type=int, default=5, help="alternations with the peer")
    options = parser.parse_args()

    bench = new_bench(options)
    shape = bench.shape
    result = measure(bench, options.repeats, parts=not options.no_parts)
    if options.peer:
        users = options.peer_users or shape.users
        release = ["--release-memory"] if options.peer_releases_memory else []
        peer = Peer(options.peer_python, dataclasses.replace(shape, users=users), *release, name=options.peer)
        try:
            result |= alternate(bench, peer, options.rounds, peer_users=users, peer_warm_up=options.peer_warm_up)
        finally:
            peer.close()
    print(table(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
