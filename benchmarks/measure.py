"""Clocks, this machine's matrix-product peak, and peak memory."""

import functools
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def seconds(run: Callable[[], Any], repeats: int) -> list[float]:
    """Wall seconds of each of `repeats` calls, each waited for."""
    out = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        out.append(time.perf_counter() - start)
    return out


def matmul_peak(sizes: tuple[int, ...] = (1024, 2048, 4096), repeats: int = 5, dtype: str = "float32") -> float:
    """FLOP/s of the fastest square product that XLA makes here."""
    product = jax.jit(lambda a, b: a @ b)
    best = 0.0
    for n in sizes:
        a = jax.random.normal(jax.random.key(n), (n, n), dtype)  # zeros and ones draw less power
        jax.block_until_ready(product(a, a))
        best = max(best, 2 * n**3 / min(seconds(functools.partial(product, a, a), repeats)))
    return best


def copy_rate(megabytes: int = 1024, repeats: int = 5) -> float:
    """Bytes a second, read and written together, of a pass over a float32 array of that size."""
    x = jnp.ones(megabytes * 2**18)
    add = jax.jit(lambda x: x + 1)
    jax.block_until_ready(add(x))
    return 2 * x.nbytes / min(seconds(lambda: add(x), repeats))


def peak_memory_bytes() -> int:
    """The most memory that this process held at once: the device's where it says so, otherwise resident memory."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def median(values: list[float]) -> float:
    return statistics.median(values)
