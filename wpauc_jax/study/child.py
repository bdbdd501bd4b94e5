"""One run of a study in a process of its own: `python -m wpauc_jax.study.child PARENT MODE,MODE ARGUMENTS OF MAIN`.

It ends with its parent. A study that was killed leaves no run behind which its next start would find at work.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from wpauc_jax.main import main as run

_LOOKS = 0.5  # seconds between two looks at the parent


def main(arguments: Sequence[str]) -> int:
    """Does the modes one after another, until one fails. Returns the exit code."""
    _, parent, modes, *rest = arguments
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    for mode in modes.split(","):
        code = run(["main", *rest, f"--config.mode={mode}"])
        if code:
            return code
    return 0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)  # training saves, and goes on from there the next time


if __name__ == "__main__":
    sys.exit(main(sys.argv))
