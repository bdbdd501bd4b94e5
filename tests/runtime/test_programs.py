"""Compiled programs on disk: used by the next process, shared, and never in the way."""

import os
import pathlib
import subprocess
import sys

from wpauc_jax.runtime.programs import keep_programs

ROOT = pathlib.Path(__file__).parents[2]
CODE = """
import pathlib, sys
import jax, jax.numpy as jnp
from wpauc_jax.runtime import programs
programs._SECONDS = 0.0
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
print(programs.keep_programs(pathlib.Path(sys.argv[1])))
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(3.0))), len(hits))
"""


def run(folder):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", CODE, str(folder)]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    problem, answer = found.stdout.splitlines()
    return problem, *answer.split()


def test_the_next_process_loads_what_this_one_compiled(tmp_path):
    problem, first, hits = run(tmp_path)
    assert (problem, hits) == ("", "0")
    (own,) = tmp_path.iterdir()
    kept = sorted(path.name for path in own.glob("*-cache"))
    assert kept
    half = own / "jit_half-0-cache"  # as a killed process leaves it
    half.write_bytes(b"x")
    problem, second, hits = run(tmp_path)
    assert (problem, second) == ("", first) and int(hits) >= len(kept)
    assert sorted(path.name for path in own.glob("*-cache")) == kept


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "file").touch()
    assert "cannot be used for compiled programs" in keep_programs(tmp_path / "file")


def test_the_environment_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert keep_programs(tmp_path / "other") == "" and not list(tmp_path.iterdir())
