"""The parts of `benchmarks.accelerator`, each a process: `python -m benchmarks.accelerator_parts NAME [--tiny]`.

The last line is one JSON object; a part of many rows prints it after each, with the rows so far. A check has `ok`.
Timings are medians of seconds; shares are of the matrix products' peak in bfloat16, measured in the same process.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sft
from benchmarks.decode import trie_seconds
from benchmarks.measure import copy_rate, matmul_peak, median, peak_memory_bytes
from benchmarks.peer import Peer
from benchmarks.rl_step import Runner
from benchmarks.setup import Bench, model_config, rl_config
from benchmarks.shapes import SHAPES, Shape
from wpauc_jax.models import Policy, Prompts, load_pretrained
from wpauc_jax.models.attention import causal_attention
from wpauc_jax.models.kernels import cudnn_attention, splash_attention

GOLDEN = pathlib.Path(__file__).parents[1] / "tests" / "golden"
FLOAT32_LIMIT, BFLOAT16_LIMIT = 1e-3, 0.06  # of logits that reach 5; of a difference over the largest number
TINY: dict[str, Any] = {
    **{"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 32, "vocab": 512},
    **{"users": 2, "group": 4, "prompt": 12, "items": 100, "codes": 32},
}
FAST = {"dtype": "bfloat16"}
# By shape: the batches and groups of an RL step. Few, as a GPU compiles each for half a minute; the largest batch is
# first, as time may not suffice for all.
POINTS: dict[str, tuple[tuple[int, int], ...]] = {
    "mini": ((256, 16), (64, 64)),
    "qwen05": ((64, 16), (16, 16)),
    "qwen15": ((32, 16),),
}
LAYERS = {"mini": "unrolled", "qwen05": "scanned", "qwen15": "scanned"}
BATCH_TOKENS = {"mini": 65_536, "qwen05": 16_384, "qwen15": 8_192}
PEER_USERS = {"mini": 8, "qwen05": 2}


def machine(tiny: bool) -> dict[str, Any]:
    """What is here."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "platform": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "memory_bytes": stats.get("bytes_limit"),
        "host": platform.platform(),
        "jax_version": jax.__version__,
    }


def models(tiny: bool) -> dict[str, Any]:
    """Logits of the golden models, which PyTorch made on a CPU, in float32 and in bfloat16."""
    forward, found, ok = jax.jit(Policy.forward, static_argnums=0), {}, True
    for folder in sorted(path.parent for path in GOLDEN.glob("*/golden.npz")):
        with np.load(folder / "golden.npz") as golden:
            tokens, logits = jnp.asarray(golden["tokens"], jnp.int32), golden["logits"]
        for dtype, limit in (("float32", FLOAT32_LIMIT), ("bfloat16", BFLOAT16_LIMIT * np.abs(logits).max())):
            with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
                policy, params = load_pretrained(folder, dtype=dtype, settings=_settings(dtype))
                difference = float(np.abs(np.asarray(forward(policy, params, tokens), np.float32) - logits).max())
            found[f"{folder.name} {dtype}"] = {"difference": difference, "limit": float(limit)}
            ok &= difference < limit
    return {"ok": bool(ok and found), "logits": found}


def attention(tiny: bool) -> dict[str, Any]:
    """The vendor's kernel against XLA's attention, value and gradients, in bfloat16; packed rows too."""
    kernels: dict[str, dict[str, Callable[..., jax.Array]]] = {
        "gpu": {"cudnn": cudnn_attention},
        "tpu": {"splash": splash_attention},
    }
    interpreted: dict[str, Callable[..., jax.Array]] = {
        "splash, interpreted": functools.partial(splash_attention, interpret=True)
    }
    B, T, N, K, H = (1, 20, 4, 2, 16) if tiny else (4, 256, 8, 2, 64)
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (
        jax.random.normal(key, shape, jnp.bfloat16)
        for key, shape in zip(keys, ((B, T, N, H), (B, K, T, H), (B, K, T, H)), strict=False)
    )
    cotangent = jax.random.normal(keys[3], (B, T, N, H), jnp.bfloat16)
    segments = jnp.broadcast_to(jnp.arange(T) * 3 // T + 1, (B, T)).astype(jnp.int32)
    found, ok = {}, True
    for name, kernel in kernels.get(jax.default_backend(), interpreted).items():
        for rows, segments_BT in (("one", None), ("packed", segments)):
            ours, theirs = (_with_slopes(f, (q, k, v), segments_BT, cotangent) for f in (causal_attention, kernel))
            difference = max(_apart(a, b) for a, b in zip(ours, theirs, strict=True))
            found[f"{name}, {rows}"] = difference
            ok &= difference < BFLOAT16_LIMIT
    return {"ok": ok, "relative_difference": found, "limit": BFLOAT16_LIMIT}


def steps(tiny: bool) -> dict[str, Any]:
    """Loss and gradient of an RL step here, in float32, against the same step on this machine's CPU."""
    shape = dataclasses.replace(SHAPES["mini"], **TINY)
    found = {}
    for name, device in (("here", jax.devices()[0]), ("cpu", jax.devices("cpu")[0])):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            bench = Bench(shape, model_config(shape), rl_config(shape))
            _, metrics = bench.step(bench.new_state(), bench.batch(0))
            found[name] = {key: float(metrics[key]) for key in ("loss", "grad_norm")}
    apart = {
        key: abs(found["here"][key] - found["cpu"][key]) / max(abs(found["cpu"][key]), 1e-3) for key in found["cpu"]
    }
    return {"ok": max(apart.values()) < FLOAT32_LIMIT, "relative_difference": apart, **found}


def ceilings(tiny: bool) -> dict[str, Any]:
    """Matrix products a second, and bytes a second between device and memory."""
    sizes = (128,) if tiny else (4096, 8192, 16_384) if jax.default_backend() != "cpu" else (1024, 2048)
    products = {dtype: matmul_peak(sizes, 3, dtype) for dtype in ("float32", "bfloat16")}
    return {"matmul_flops_per_s": products, "copy_bytes_per_s": copy_rate(1 if tiny else 2048)}


def rl(name: str, tiny: bool) -> dict[str, Any]:
    """RL steps over batches and groups."""
    rows: list[dict[str, Any]] = []
    for users, group in POINTS[name][:1] if tiny else POINTS[name]:
        shape = _shape(name, tiny) if tiny else dataclasses.replace(SHAPES[name], users=users, group=group)
        rows.append({"users": shape.users, "group": shape.group} | _fitting(functools.partial(_rl_point, shape, tiny)))
        print(json.dumps({"rows": rows, **_peak(tiny)}), flush=True)
    return {"rows": rows, "peak_memory_bytes": peak_memory_bytes(), **_peak(tiny)}


def sft_steps(name: str, tiny: bool) -> dict[str, Any]:
    """SFT steps on packed rows; the loop's waiting for batches is in its time."""
    shape = _shape(name, tiny)
    tokens = 128 if tiny else BATCH_TOKENS[name]

    def point() -> dict[str, Any]:
        users = 100 if tiny else 20_000
        found = sft.ways(shape, _model(shape), users=users, max_history=10, batch_tokens=tokens, names=("packed",))
        return found["packed"].run(2 if tiny else 10)

    return {"batch_tokens": tokens} | _fitting(point) | {"peak_memory_bytes": peak_memory_bytes()}


def decode(tiny: bool) -> dict[str, Any]:
    """Constrained beam search at growing catalogs, in bfloat16: milliseconds a batch."""
    rows = []
    for items in (100, 1000) if tiny else (1000, 10_000, 100_000, 1_000_000):
        shape = dataclasses.replace(_shape("mini", tiny), items=items, levels=4)
        bench = Bench(shape, _model(shape), rl_config(shape))
        params, batch = bench.new_params(), bench.batch(0)
        cache = jax.jit(bench.policy.prefill)(params, Prompts(batch.prompts.tokens, batch.prompts.lengths))
        rows.append({"items": items, "ms": 1e3 * trie_seconds(bench, cache, params, 3 if tiny else 20)})
    return {"rows": rows, "growth": rows[-1]["ms"] / rows[0]["ms"]}


def peer(name: str, tiny: bool) -> dict[str, Any]:
    """The RL step against Hugging Face with PyTorch on the same card, in turns, in bfloat16."""
    shape = _shape(name, tiny) if tiny else dataclasses.replace(SHAPES[name], users=PEER_USERS[name])
    bench = Bench(shape, _model(shape), rl_config(shape))
    runner = Runner(bench)
    runner.steps(2)
    on_card = jax.default_backend() == "gpu"
    other = Peer(sys.executable, shape, f"--device={'cuda' if on_card else 'cpu'}", "--dtype=bfloat16")
    ours, theirs = [], []
    try:
        other.step()
        for _ in range(1 if tiny else 3):
            ours.append(median(runner.steps(1 if tiny else 5)))
            theirs.append(other.step()["step_s"])
    finally:
        other.close()
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "users": shape.users,
        "step_s": median(ours),
        "peer_step_s": median(theirs),
        "ratio": median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
    }


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "machine": machine,
    "models": models,
    "attention": attention,
    "steps": steps,
    "ceilings": ceilings,
    "decode": decode,
    **{f"rl_{name}": functools.partial(rl, name) for name in POINTS},
    **{f"sft_{name}": functools.partial(sft_steps, name) for name in BATCH_TOKENS},
    **{f"peer_{name}": functools.partial(peer, name) for name in PEER_USERS},
}


def _shape(name: str, tiny: bool) -> Shape:
    return dataclasses.replace(SHAPES[name], **TINY) if tiny else SHAPES[name]


def _settings(dtype: str) -> Any:
    from wpauc_jax.config import ModelConfig

    return ModelConfig(dtype=dtype)


def _model(shape: Shape) -> Any:
    """The shape's model in bfloat16, by the vendor's attention where there is one."""
    kernel = {"gpu": "cudnn", "tpu": "splash"}.get(jax.default_backend(), "xla")
    return model_config(shape, **FAST, layers=LAYERS[shape.name], attention=kernel)


@functools.cache
def _bfloat16_peak(tiny: bool) -> float:
    return ceilings(tiny)["matmul_flops_per_s"]["bfloat16"]


def _peak(tiny: bool) -> dict[str, float]:
    return {"matmul_peak_flops_per_s": _bfloat16_peak(tiny)}


def _rl_point(shape: Shape, tiny: bool) -> dict[str, Any]:
    """One RL step: seconds, the share of peak, and what its program holds."""
    peak = _bfloat16_peak(tiny)
    bench = Bench(shape, _model(shape), rl_config(shape))
    start = time.perf_counter()
    compiled = bench.compile()
    compiled_in = time.perf_counter() - start
    runner = Runner(bench)
    runner.steps(2)
    taken = median(runner.steps(2 if tiny else 8))
    runner.drop()
    memory = compiled.memory_analysis()
    return {
        "step_s": taken,
        "users_per_s": shape.users / taken,
        "share": bench.flops.step / taken / peak,
        "compile_s": compiled_in,
        "program_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else None,
    }


def _fitting(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `run` gives, or that it does not fit into memory."""
    try:
        return run()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"does_not_fit": True}


def _with_slopes(attend: Callable[..., jax.Array], args: Any, segments: Any, cotangent: jax.Array) -> Iterator[Any]:
    out, pull = jax.vjp(lambda *args: attend(*args, segments), *args)
    return iter((out, *pull(cotangent)))


def _apart(a: jax.Array, b: jax.Array) -> float:
    """The largest difference over the largest number."""
    one, other = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return float(np.abs(one - other).max() / np.abs(one).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    print(json.dumps(PARTS[options.part](options.tiny)))


if __name__ == "__main__":
    main()
