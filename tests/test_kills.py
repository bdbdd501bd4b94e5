"""Real commands killed by SIGKILL at random moments, and started again: the same bits, and no file left behind.

Every mode is run once undisturbed, each on what the one before it left. A kill interrupts the mode on a copy of what
came before, at a moment drawn over the time that the undisturbed command took. The same command again must end well.
"""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.data_worlds import circle
from tests.stages.test_old_run import ARCHIVE
from tests.stages.test_old_run import CONFIG as OLD_RUN
from wpauc_jax import modes
from wpauc_jax.config import RecommendConfig

ROOT = pathlib.Path(__file__).parent.parent
MODEL = {"num_layers": 1, "width": 16, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "ffn_width": 16}
SETTINGS = {
    "data.source": "recbole",
    "data.archive": "",
    "data.k_core": 0,
    "data.max_history": 4,
    "catalog.embedding": "cooccurrence",
    "catalog.embedding_width": 8,
    "catalog.levels": 2,
    "catalog.codes": 4,
    "sft.batch_size": 8,
    "sft.steps": 12,
    "sft.evals": 3,
    "sft.saves": 6,
    "sft.optim.learning_rate": 0.01,
    "rl.batch_size": 4,
    "rl.steps": 12,
    "rl.evals": 3,
    "rl.saves": 6,
    "rl.group_size": 4,
    "rl.optim.learning_rate": 0.01,
    "eval.num_beams": 10,
    "eval.batch_size": 8,
    **{f"model.{name}": value for name, value in MODEL.items()},
}
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["jax", "wpauc_jax.modes"])
LIMIT = 300  # seconds for a command, on a machine that has much else to do


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a job that kills are to hit: the mode that does it, and what its process prints at either end.

    Where nothing is said to be printed at its end, it ends with the process.
    """

    mode: str
    begins: str
    ends: str
    kills: int


MODES = {
    "prepare": Phase("prepare", "reading ", "", 3),
    "sft": Phase("sft", "sft: compiling", "", 3),
    "rl": Phase("rl", "rl: compiling", "", 3),
    "evaluate": Phase("evaluate", "test of sft: compiling", "", 3),
    "recommend": Phase("recommend", "recommend: compiling", "", 2),
    "export": Phase("export", "using the prepared data", "the model of rl, its tokenizer", 3),
}
# A validation begins after the line of its step and ends with a line of its own.
VALIDATIONS = {
    "validation of sft": Phase("sft", "sft: 64/96", "sft: step 8: ", 1),
    "validation of rl": Phase("rl", "rl: 16/48", "rl: step 4: ", 2),
}
PHASES = MODES | VALIDATIONS


class Command:
    """A command that runs, and the lines that it prints with the seconds since its start."""

    def __init__(self, mode: str, folder: pathlib.Path, world: "World") -> None:
        settings = SETTINGS | {"mode": mode, "data.path": world.data, "recommend.input": world.histories}
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(world.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "wpauc_jax.main", "--config=configs/quickstart.py", f"--workdir={folder}"),
                *(f"--config.{name}={value}" for name, value in settings.items()),
            ],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1", **cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[tuple[float, str]] = []
        self._news = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def printed(self) -> str:
        return "".join(line for _, line in self.lines)

    def wait(self) -> int:
        """The exit code, when all that was printed has been read."""
        code = self.process.wait(LIMIT)
        self._reader.join()
        return code

    def seconds_at(self, beginning: str) -> float:
        """When the first line that begins so was printed."""
        return next(seconds for seconds, line in self.lines if line.startswith(beginning))

    def wait_for_lines(self, count: int) -> None:
        """Returns when so many lines are printed, or the command is over."""
        with self._news:
            assert self._news.wait_for(lambda: self._over or len(self.lines) >= count, LIMIT), "the command hangs"

    def kill(self) -> int:
        self.process.kill()
        return self.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append((time.monotonic() - self._began, line))
                self._news.notify()
        with self._news:
            self._over = True
            self.seconds = time.monotonic() - self._began
            self._news.notify()


@dataclasses.dataclass
class World:
    """A few users and items, and what the undisturbed commands did with them."""

    root: pathlib.Path
    data: pathlib.Path
    histories: pathlib.Path
    cache: pathlib.Path  # of compiled programs: the time of a command is not that of its compilations
    undisturbed: dict[str, Command] = dataclasses.field(default_factory=dict)
    outcomes: dict[str, dict[str, object]] = dataclasses.field(default_factory=dict)

    def after(self, mode: str) -> pathlib.Path:
        """What was there when a mode had ended."""
        return self.root / "after" / mode

    def before(self, mode: str, folder: pathlib.Path) -> pathlib.Path:
        """A fresh copy of what the mode found."""
        shutil.rmtree(folder, ignore_errors=True)
        number = list(MODES).index(mode)
        if number:
            shutil.copytree(self.after(list(MODES)[number - 1]), folder)
        return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """Each command runs twice on the same, undisturbed: the first fills the cache, the second is timed."""
    root = tmp_path_factory.mktemp("kills")
    circle(root / "circle", items=16, users=24, shortest=6, longest=9)
    histories = root / "histories.jsonl"
    histories.write_text(
        "".join(json.dumps({"user": f"h{i}", "history": [f"i{i}", f"i{i + 1}"]}) + "\n" for i in range(12))
    )
    made = World(root, root / "circle", histories, root / "cache")
    for mode in MODES:
        first = made.before(mode, root / "first")
        assert run(mode, first, made).process.returncode == 0
        timed = made.before(mode, made.after(mode))
        made.undisturbed[mode] = run(mode, timed, made)
        made.outcomes[mode] = outcome(timed)
        assert_same(outcome(first), made.outcomes[mode])
    return made


def run(mode: str, folder: pathlib.Path, world: World) -> Command:
    """The command from its start to its end, which must be good."""
    command = Command(mode, folder, world)
    assert command.wait() == 0, command.printed
    return command


def kill(phase: Phase, moment: float, folder: pathlib.Path, world: World) -> str:
    """Kills the mode within the phase, at `moment` of it from 0 to 1; gives back what the process had printed.

    The moment counts from the last line before it, so that a machine that is slower now makes no difference. Where the
    phase was over all the same, it comes a little earlier.
    """
    usual = world.undisturbed[phase.mode]
    begin, end = usual.seconds_at(phase.begins), usual.seconds_at(phase.ends) if phase.ends else usual.seconds
    due = begin + moment * (end - begin)
    count = sum(seconds <= due for seconds, _ in usual.lines)
    delay = due - usual.lines[count - 1][0]
    for _ in range(5):
        command = Command(phase.mode, world.before(phase.mode, folder), world)
        command.wait_for_lines(count)
        time.sleep(delay)
        code, there = command.kill(), (folder / "export").exists()  # a second export of one name would be refused
        if code == -signal.SIGKILL and not there and not (phase.ends and phase.ends in command.printed):
            assert phase.begins in command.printed
            return command.printed
        delay /= 2
    raise AssertionError(f"{phase.mode} was always over before it could be killed")


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_killed_at_random_moments_a_command_ends_as_if_it_had_not_been(world, tmp_path, name):
    """The moments are drawn over the phase, one from each of as many equal parts of it as there are kills."""
    phase, draw = PHASES[name], random.Random(name)
    for number in range(phase.kills):
        printed = kill(phase, (number + draw.random()) / phase.kills, tmp_path / "killed", world)
        again = run(phase.mode, tmp_path / "killed", world)
        assert_same(outcome(tmp_path / "killed"), world.outcomes[phase.mode], printed, again.printed)


def test_there_are_twenty_kills():
    assert sum(phase.kills for phase in PHASES.values()) == 20


@pytest.mark.parametrize("mode", ["recommend", "export"])
def test_killed_while_it_writes(old_run, tmp_path, mode):
    """The quick version: a forked child on a work directory that is trained already."""
    wanted = shutil.copytree(old_run, tmp_path / "wanted")
    left = set(old_run.iterdir())
    child = PROCESSES.Process(target=answer, args=(mode, old_run))
    child.start()
    while child.is_alive() and not (written := set(old_run.iterdir()) - left):
        time.sleep(0.0005)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was over before it could be killed"
    assert all(path.name.startswith(".") for path in written)
    for folder in (old_run, wanted):
        answer(mode, folder)
    assert_same(outcome(old_run), outcome(wanted))


def answer(mode: str, folder: pathlib.Path) -> None:
    """The mode, whose histories stand beside the work directory."""
    recommend = RecommendConfig(input=str(folder.parent / "histories.jsonl"))
    modes.run(dataclasses.replace(OLD_RUN, mode=mode, recommend=recommend), folder)


@pytest.fixture
def old_run(tmp_path) -> pathlib.Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "histories.jsonl").write_text('{"user": "a", "history": ["3", "5"]}\n')
    return tmp_path / "old_run"


def outcome(folder: pathlib.Path) -> dict[str, object]:
    """Every file and folder with its content, less what tells the time or is a name that a library draws."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        steps = [part for part in inside.parents if part.parent.name in ("checkpoints", "best")]
        if path.is_dir() and inside.parent.name in ("checkpoints", "best"):
            found[str(inside)] = "a checkpoint" if not path.name.isdecimal() else checkpoint(path)
        elif not steps:
            found[str(inside)] = content(path)
    return found


def checkpoint(folder: pathlib.Path) -> object:
    """The arrays of a checkpoint, what it says of itself, and the names of its files."""
    (arrays,) = (folder / name for name in ("state", "params") if (folder / name).is_dir())
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        tree = reader.restore(arrays)
    leaves = [(jax.tree_util.keystr(path), bits(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.parent.name != "d"}
    return leaves, json.loads((folder / "meta" / "meta.json").read_text()), names


def bits(array: object) -> tuple[str, tuple[int, ...], bytes]:
    array = np.asarray(array)
    return str(array.dtype), array.shape, array.tobytes()


def content(path: pathlib.Path) -> object:
    """A picture shows rates, so only that there is one counts."""
    if path.is_dir():
        return "a folder"
    if path.suffix == ".png":
        return "a picture" if path.read_bytes().startswith(b"\x89PNG") else "no picture"
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: bits(arrays[name]) for name in arrays}
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{name: line[name] for name in line.keys() - {"time", "rows_per_s", "users_per_s"}} for line in lines]
    if path.name == "results.json":
        results = json.loads(path.read_text())
        for facts in results["evaluated"].values():
            del facts["parameters"]  # the hash of files whose names a library draws; `checkpoint` compares their arrays
        results.pop("made_with", None)  # the command, which names the folder; results of an older version have none
        return results
    if path.name == "report.html":  # made of the results, the command and the times among them
        return "a page" if path.read_text().rstrip().endswith("</html>") else "half a page"
    return path.read_bytes()


def assert_same(found: dict[str, object], wanted: dict[str, object], *printed: str) -> None:
    told = "\n--- and again:\n".join(printed)
    assert found.keys() - wanted.keys() == set(), f"left behind, by\n{told}"
    assert wanted.keys() - found.keys() == set(), f"missing, after\n{told}"
    assert [name for name in wanted if found[name] != wanted[name]] == [], f"other content, after\n{told}"
