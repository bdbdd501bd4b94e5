"""Everything that an accelerator is asked, part by part, within a time: benchmarks/accelerator.sh starts it.

    benchmarks/accelerator.sh OUT                       # one GPU or TPU chip, at most eight minutes a call
    benchmarks/accelerator.sh OUT --only decode         # a part alone, anew
    benchmarks/accelerator.sh OUT --tiny                # the same parts on tiny shapes, on a CPU
    benchmarks/accelerator.sh OUT --studies objectives:office negatives:office --data=DATA --seconds=560

Correctness comes first: without it no part is timed. Each part is a process of its own, so that one that runs out of
memory or time does not take the others along, and peaks of memory are its own. OUT/accelerator.json is written after
each part, and the same command goes on with the parts that are missing. By their sum all parts take about ten minutes
on an H200, most of it compiling.

Needs JAX with the accelerator's plugin, Flax, Optax, Orbax, NumPy, PyArrow, safetensors, filelock, tokenizers,
transformers (for the peer, with torch), and these small packages, which such a machine may lack: grain, array-record,
portpicker, ml_collections, absl-py, etils, threadpoolctl. Where they cannot be installed, put their wheels' contents
on PYTHONPATH. Neither Polars nor scikit-learn is needed.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import time
from typing import Any

from benchmarks.accelerator_page import page

# In the order in which they run: seconds that each may take.
PARTS = {
    "machine": 60,
    "models": 120,
    "attention": 90,
    "steps": 120,
    "ceilings": 60,
    "rl_mini": 150,
    "peer_mini": 120,
    "decode": 120,
    "sft_mini": 90,
    "rl_qwen05": 180,
    "sft_qwen05": 120,
    "rl_qwen15": 180,
    "peer_qwen05": 120,
    "sft_qwen15": 120,
}
CHECKS = ("models", "attention", "steps")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers")
_GRACE = 5.0  # seconds in which a study that is told to stop writes its checkpoint


def versions() -> dict[str, str]:
    """Of the packages that are here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not here"
    return found | {"python": sys.version.split()[0]}


def run_part(name: str, *, tiny: bool, seconds: float) -> dict[str, Any]:
    """What a part found, or its error; of a part that took too long, what it had found."""
    command = [sys.executable, "-m", "benchmarks.accelerator_parts", name, *(["--tiny"] if tiny else [])]
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        whole = (late.stdout or b"").rpartition(b"\n")[0].splitlines()
        found = json.loads(whole[-1]) if whole else {}
        return found | {"error": f"took longer than {seconds:.0f} s", "wall_s": time.monotonic() - start}
    facts: dict[str, Any] = {"wall_s": time.monotonic() - start}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return facts | {"error": f"ended with status {done.returncode}; its error stands in the output"}
    return facts | json.loads(lines[-1])


def measure(out: pathlib.Path, *, tiny: bool, only: list[str], seconds: float) -> int:
    """Does the parts that are missing, as long as there is time. Returns the exit code."""
    path = out / "accelerator.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    found |= {"versions": versions(), "tiny": tiny}
    end, code = time.monotonic() + seconds, 0
    wanted = [name for name in PARTS if name in only or (not only and not _is_done(found["parts"].get(name)))]
    for number, name in enumerate(wanted):
        left = end - time.monotonic()
        if left < 10:
            print(f"out of time; the same command goes on with {', '.join(wanted[number:])}")
            code = 3
            break
        most = min(left, PARTS[name] * (5 if tiny else 1))  # a CPU compiles slowly beside others
        print(f"{name}: at most {most:.0f} s", flush=True)
        found["parts"][name] = run_part(name, tiny=tiny, seconds=most)
        _write(path, json.dumps(found, indent=1))
        _write(out / "accelerator.md", page(found))
        if name in CHECKS and not found["parts"][name].get("ok"):
            print(f"error: {name} is not right on this machine; nothing is timed: {json.dumps(found['parts'][name])}")
            return 1
        if "error" in found["parts"][name]:
            print(f"{name}: {found['parts'][name]['error']}")
            code = code or 3
    print(page(found))
    print(json.dumps(found))
    return code


def _is_done(part: dict[str, Any] | None) -> bool:
    return part is not None and "error" not in part and part.get("ok", True)


def _write(path: pathlib.Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def study(out: pathlib.Path, names: list[str], *, data: str, seconds: float, extra: list[str]) -> int:
    """Trains shipped studies until the time is over. Returns 0 when all are done, otherwise 3.

    What is done is kept in OUT/studies.tar.gz too, one file to carry to the next machine. It lacks compiled programs.
    """
    folder, archive = out / "studies", out / "studies.tar.gz"
    if archive.exists() and not folder.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(out, filter="data")
    end, codes = time.monotonic() + seconds, {}
    for name in names:
        file, _, argument = name.partition(":")
        config = f"configs/studies/{file}.py" + (f":{argument}" if argument else "")
        command = [sys.executable, "-m", "wpauc_jax.study", f"--config={config}"]
        command += [f"--workdir={folder / name.replace(':', '_')}", *([f"--config.data.root={data}"] if data else [])]
        left = end - time.monotonic() - 4 * _GRACE
        codes[name] = _until([*command, *extra], left) if left > 0 else None
    if folder.exists():
        with tarfile.open(out / ".studies.tar.gz", "w:gz", compresslevel=1) as tar:  # parameters hardly shrink
            tar.add(folder, "studies", filter=_but_programs)
        os.replace(out / ".studies.tar.gz", archive)
    print(json.dumps({"studies": codes}))  # null: stopped, or not begun; the same command goes on
    failed = [code for code in codes.values() if code]
    return failed[0] if failed else 3 if None in codes.values() else 0


def _but_programs(file: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leaves out the folder of compiled programs of each study, and no arm of that name."""
    return None if file.name.split("/")[2:] == ["programs"] else file


def _until(command: list[str], seconds: float) -> int | None:
    """The exit code, or None of a command that was told to stop after so many seconds."""
    process = subprocess.Popen(command)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(3 * _GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--only", nargs="+", default=[], choices=PARTS, help="these parts, anew")
    parser.add_argument("--studies", nargs="+", default=[], help="studies of configs/studies, with :ARGUMENT")
    parser.add_argument("--data", default="", help="the folder that holds the data sets of studies")
    options, extra = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.studies:
        return study(options.out, options.studies, data=options.data, seconds=options.seconds, extra=extra)
    if extra:
        parser.error(f"unknown: {' '.join(extra)}")
    return measure(options.out, tiny=options.tiny, only=options.only, seconds=options.seconds)


if __name__ == "__main__":
    sys.exit(main())
