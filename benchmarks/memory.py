"""Memory that a process no longer uses. Without JAX, since the peer imports this, too."""

import ctypes
import gc
import sys


def release_memory() -> None:
    """Gives freed memory back to the system, which glibc otherwise keeps for this process."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
