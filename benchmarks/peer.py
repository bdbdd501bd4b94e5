"""A peer as a process beside this one: the Hugging Face way, or Tunix. Needs no JAX."""

import contextlib
import dataclasses
import json
import subprocess
from typing import Any

from benchmarks.shapes import Shape


class PeerProcess:
    """A command that takes a step for each line of its input, and answers with one line of JSON."""

    def __init__(self, command: list[str]):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> dict[str, Any]:
        """One step; it waits between steps. Raises RuntimeError where the process has ended."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # then it has no answer either
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}; its error stands above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._process.stdin.close()
        self._process.wait()


PEERS = {"hf": "benchmarks.peer_hf", "tunix": "benchmarks.peer_tunix"}  # modules by name


class Peer(PeerProcess):
    """One of `PEERS` as a process."""

    def __init__(self, python: str, shape: Shape, *options: str, name: str = "hf"):
        super().__init__([python, "-m", PEERS[name], f"--set={json.dumps(dataclasses.asdict(shape))}", *options])
