"""Compiled programs on disk: a later run of the same shapes loads them instead of compiling them.

JAX keeps them under a hash of the program, its compiler and its options. Programs for a CPU are kept apart by the kind
of CPU, as JAX's hash does not tell these apart.
"""

import hashlib
import os
import pathlib
import platform

import filelock
import jax

MOST_BYTES = 2 * 2**30  # of a folder; what was used longest ago goes first
_SECONDS = 0.3  # a program that compiles faster is not kept
_LOCK_SECONDS = 10.0


def keep_programs(folder: pathlib.Path) -> str:
    """From now on this process keeps its compiled programs in a part of `folder`. Returns what failed, or "".

    What JAX_COMPILATION_CACHE_DIR says comes first. Several processes may share the folder. Where it cannot be written,
    everything is compiled as without it.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return ""
    own = folder / f"{platform.machine()}-{_processor()}"
    try:
        own.mkdir(parents=True, exist_ok=True)
        _drop_halves(own)
    except (OSError, filelock.Timeout) as error:
        return f"{own} cannot be used for compiled programs ({error})"
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
    return ""


def _drop_halves(folder: pathlib.Path) -> None:
    """Removes what a killed process left half written: a program whose time of use, written after it, is missing."""
    with filelock.FileLock(folder / ".lockfile", timeout=_LOCK_SECONDS):
        for path in folder.glob("*-cache"):
            if not path.with_name(f"{path.name.removesuffix('-cache')}-atime").exists():
                path.unlink()


def _processor() -> str:
    """A hash of what this machine's CPU can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    told = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")
    return hashlib.sha256(told.encode()).hexdigest()[:8]
