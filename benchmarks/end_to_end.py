"""Where the wall time of a whole run goes: import, preparation, catalog, compiling, SFT, validation, RL, test, files.

    python -m benchmarks.end_to_end --config=configs/quickstart.py
    python -m benchmarks.end_to_end --config=configs/amazon.py:office --config.compile_cache=off
    python -m benchmarks.end_to_end --config=configs/quickstart.py --workdir=runs/twice   # keep the work directory

It runs mode=all in this process, in a new work directory unless --workdir names one. All other flags go to the run. A
part's seconds are its own: a compile inside SFT counts as compiling. What runs in other threads, as the writing of a
checkpoint does, counts where the run waits for it. Prints parts, programs that took longest to make, and one JSON
object. With the cache of compiled programs filled, a second call says what a later run costs.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.timeline import Recorder, Span, by_part, own_seconds

# (module, function in it, part). A function is watched under the name by which its caller knows it.
WATCHED: tuple[tuple[str, str, str | Callable[..., str]], ...] = (
    ("wpauc_jax.modes", "prepare", "preparation"),
    ("wpauc_jax.stages.run", "open_catalog", "catalog"),
    ("wpauc_jax.stages.run", "first_model", "first model"),
    ("wpauc_jax.stages.train", "fit", lambda stage, *_, **__: {"sft": "SFT", "rl": "RL"}[stage]),
    ("wpauc_jax.stages.train", "sft_rows", "packing"),
    ("wpauc_jax.stages.train", "_Validation.__call__", "validation"),
    ("wpauc_jax.stages.train", "Checkpoints.__enter__", "files"),
    ("wpauc_jax.stages.train", "Checkpoints.save", "files"),
    ("wpauc_jax.stages.train", "Checkpoints.__exit__", "files"),
    ("wpauc_jax.stages.train", "BestCheckpoint.save", "files"),
    ("wpauc_jax.stages.train", "BestCheckpoint.__exit__", "files"),
    ("wpauc_jax.stages.train", "load_params", "files"),
    ("wpauc_jax.stages.evaluate", "load_best", "files"),
    ("wpauc_jax.stages.evaluate", "untrained_ranks", "rankings without training"),
    ("wpauc_jax.stages.evaluate", "_evaluate_stage", "test"),
    ("wpauc_jax.stages.evaluate", "_write_report", "files"),
    ("wpauc_jax.stages.evaluate", "_plot", "plots"),
    ("wpauc_jax.modes", "evaluate_workspace", "results"),
    ("wpauc_jax.modes", "_evaluate", "report.html"),
)
COMPILING = {  # JAX's events, by what they time
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
LONGEST = 12  # programs in the table


@contextlib.contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Records the parts of runs of this process, and each program that JAX makes."""
    import jax

    def on_duration(event: str, duration_secs: float, **facts: str | int) -> None:
        if event in COMPILING:
            recorder.add(duration_secs, COMPILING[event], str(facts.get("fun_name", "")))

    endings = [recorder.watch(*watched) for watched in WATCHED]
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        for end in endings:
            end()


def programs(spans: list[Span]) -> list[dict[str, Any]]:
    """Each program by its function's name: how often it was made, and its seconds, the slowest first."""
    found: dict[str, dict[str, Any]] = {}
    for span, seconds in own_seconds(spans):
        if span.part in COMPILING.values():
            name = span.name.removeprefix("jit(").removesuffix(")")
            program = found.setdefault(name, {"name": name, "times": 0, "seconds": 0.0})
            program["seconds"] += seconds
            program["times"] += span.part == "compiling"
    return sorted(found.values(), key=lambda program: -program["seconds"])


def run(arguments: Sequence[str], workdir: pathlib.Path) -> dict[str, Any]:
    """A run and its parts. Raises SystemExit where the run fails."""
    recorder, start = Recorder(), time.perf_counter()
    from wpauc_jax import main, modes  # noqa: F401 - the import is what is timed

    recorder.add(time.perf_counter() - start, "import")
    with recorded(recorder):
        code = main.main(["wpauc", *arguments, f"--workdir={workdir}"])
    if code:
        raise SystemExit(code)
    end = time.perf_counter()
    spans = [*recorder.spans, Span(start, end, "rest")]
    parts = dict(sorted(by_part(spans).items(), key=lambda item: -item[1]))
    made = programs(recorder.spans)
    return {
        "wall_s": end - start,
        "parts_s": parts,
        "shares": {part: seconds / (end - start) for part, seconds in parts.items()},
        "programs": made[:LONGEST],
        "made_more_than_once": [program["name"] for program in made if program["times"] > 1],
    }


def table(result: dict[str, Any]) -> str:
    """The parts, and the programs."""
    lines = [f"{'part':<28}{'seconds':>10}{'share':>9}"]
    lines += [
        f"{part:<28}{seconds:>10.2f}{result['shares'][part]:>8.1%}" for part, seconds in result["parts_s"].items()
    ]
    lines += [f"{'all':<28}{result['wall_s']:>10.2f}", "", f"{'program':<44}{'times':>6}{'seconds':>10}"]
    lines += [f"{one['name'][:42]:<44}{one['times']:>6}{one['seconds']:>10.2f}" for one in result["programs"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, help="where to run; default: a new folder, deleted at the end")
    options, arguments = parser.parse_known_args()
    with contextlib.ExitStack() as stack:
        workdir = options.workdir or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()), "run")
        result = run(arguments, workdir)
    print(table(result), file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
