"""With what a result was made: the command, the versions, the devices."""

import importlib.metadata
import platform
import shlex
import sys
from typing import Any

import jax

import wpauc_jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "polars")


def made_with() -> dict[str, Any]:
    """JSON values: the command of this process, versions by name, the number and kind of devices."""
    versions = {"wpauc_jax": wpauc_jax.__version__, **{name: _version(name) for name in _PACKAGES}}
    return {
        "command": shlex.join(sys.orig_argv),
        "versions": {"python": platform.python_version(), **versions},
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }


def _version(package: str) -> str:
    """Of an installed package. Who trains from prepared data needs not all of them."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
