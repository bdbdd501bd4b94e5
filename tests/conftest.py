"""Strict numerics and eight simulated devices for every test; no deadlines, since a first call compiles.

Each program is compiled once in a run: the workers, and the commands that tests start, share a cache of them.
"""

import gc
import os
import shutil
import tempfile

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_made = None
if _CACHE not in os.environ:  # in the controller, before JAX is imported; workers and commands inherit it
    os.environ[_CACHE] = _made = tempfile.mkdtemp(prefix="wpauc_jax-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis  # noqa: E402
import jax  # noqa: E402

gc.set_threshold(100_000, 50, 100)  # tracing makes many small objects: by default a tenth of it is collections
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")


def pytest_unconfigure():
    if _made:
        shutil.rmtree(_made, ignore_errors=True)
