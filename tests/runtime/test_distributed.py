"""Several processes: how they find each other, and that they are one run."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from tests.text_worlds import small_tokenizer, small_tokenizer_folder
from wpauc_jax.config import ModelConfig
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.models import init, save_pretrained
from wpauc_jax.runtime.distributed import ClusterError, Processes, find, initialize
from wpauc_jax.runtime.metric_lines import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "gpu[007-009,020],login1",
}
OPENMPI = {
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
JOBSET = {"JOBSET_COORDINATOR": "job-workers-0-0.job:8476", "JOBSET_PROCESSES": "2", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        (SLURM, Processes("gpu007:61444", 4, 2)),
        (SLURM | {"SLURM_STEP_NODELIST": "node3,node4"}, Processes("node3:61444", 4, 2)),
        (OPENMPI, Processes("10.96.0.1:62624", 3, 1)),
        (OPENMPI | {"JAX_COORDINATOR_ADDRESS": "head:1234"}, Processes("head:1234", 3, 1)),
        (JOBSET, Processes("job-workers-0-0.job:8476", 2, 1)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_JOB_ID": "4100", "SLURM_NTASKS": "4"}, None),  # a batch script's own shell, not srun's tasks
        ({}, None),
    ],
)
def test_processes_are_read_from_the_environment(environment, processes):
    assert find(environment, "auto") == processes
    assert find(environment, "none") is None


@pytest.mark.parametrize(
    ("environment", "cluster", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4"}, "auto", "SLURM_STEP_NUM_TASKS set but SLURM_PROCID, SLURM_STEP_NODELIST"),
        ({**JOBSET, "JOBSET_PROCESSES": "two"}, "auto", "JOBSET_PROCESSES='two' is not a number"),
        ({**JOBSET, "JOB_COMPLETION_INDEX": "2"}, "auto", "process 2 is not one of 2"),
        ({**JOBSET, "JOBSET_COORDINATOR": "host"}, "jobset", "coordinator 'host' is not HOST:PORT"),
        ({**SLURM, **OPENMPI}, "auto", "that of slurm and openmpi; say which counts with --cluster"),
        ({}, "slurm", "--cluster=slurm, but SLURM_STEP_NUM_TASKS is not set"),
        ({}, "mpi", "--cluster=mpi is unknown; choose one of auto, none, tpu, slurm, openmpi, jobset"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "auto", "mpirun -x JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_an_environment_that_says_a_part_is_refused(environment, cluster, message):
    with pytest.raises(ClusterError, match=message):
        find(environment, cluster)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"coordinator": "host:1"}, "--num_processes and --process_id missing"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 2}, "process 2 is not one of 2"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "'host' is not HOST:PORT"),
    ],
)
def test_flags_that_say_a_part_are_refused(flags, message):
    with pytest.raises(ClusterError, match=message):
        initialize({}, **flags)


def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"process 0 cannot listen on port {port} .*give another port"):
            initialize({}, coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=0)


@pytest.mark.parametrize("port", ["0", "65536", "123456", "-1", "x", ""])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ClusterError, match="is not HOST:PORT with a port from 1 to 65535"):
        Processes(f"host:{port}", 2, 0)


LONGER = ("--config.mode=sft", "--config.sft.steps=800", "--config.sft.saves=16")  # long enough to be interrupted

CONFIG = '''"""A circle of items, small enough for several processes on one machine."""
from wpauc_jax.config import *
from wpauc_jax.config import to_config_dict


def get_config(arg=None):
    return to_config_dict(
        Config(
            data=DataConfig(source="recbole", path=arg, k_core=0, max_history=4),
            catalog=CatalogConfig(embedding="cooccurrence", embedding_width=8, levels=2, codes=4),
            model=ModelConfig(
                num_layers=1, width=32, num_heads=4, num_kv_heads=2, head_dim=8, ffn_width=48, vocab_size=16
            ),
            sft=SftConfig(batch_size=16, steps=20, evals=2, saves=2, optim=OptimConfig(learning_rate=1e-2)),
            rl=RlConfig(batch_size=8, steps=4, evals=1, group_size=6, rows="latest", holdout=0.2),
            eval=EvalConfig(num_beams=10, batch_size=16),
        )
    )
'''


@pytest.fixture(scope="module")
def circle(tmp_path_factory) -> pathlib.Path:
    """A folder with config.py and circle.inter: users walk a circle of 24 items."""
    folder = tmp_path_factory.mktemp("circle")
    rng = np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(60):
        start, length = rng.integers(24), rng.integers(6, 10)
        lines += [f"u{user}\ti{(start + step) % 24}\t{step}" for step in range(length)]
    (folder / "circle.inter").write_text("\n".join(lines) + "\n")
    (folder / "config.py").write_text(CONFIG)
    return folder


def launch(
    processes: int, devices: int, circle: pathlib.Path, workdir: pathlib.Path, *arguments: str, python=sys.executable
):
    """launch/local.sh with that many processes and devices each, on one configuration and work directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return subprocess.Popen(
        [
            str(ROOT / "launch" / "local.sh"),
            str(processes),
            f"--config={circle / 'config.py'}:{circle}",
            f"--workdir={workdir}",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHON": str(python), "DEVICES": str(devices), "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def alone(circle, tmp_path_factory) -> pathlib.Path:
    """One process on two devices."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    finish(launch(1, 2, circle, folder))
    return folder


def losses(folder: pathlib.Path, stage: str) -> np.ndarray:
    lines = read_metrics(folder / "metrics.jsonl", stage)
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines}), "a line is written once"
    return np.array([line["loss"] for line in lines])


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    for stage in ("sft", "rl"):
        np.testing.assert_allclose(losses(one, stage), losses(other, stage), atol=1e-5)
        valid = [read_metrics(folder / "metrics.jsonl", f"{stage}/valid") for folder in (one, other)]
        assert [line["ndcg@10"] for line in valid[0]] == pytest.approx([line["ndcg@10"] for line in valid[1]], abs=1e-5)
        ranks = [Ranks.load(folder / "ranks" / f"{stage}.npz") for folder in (one, other)]
        assert (ranks[0].sample == ranks[1].sample).all()
        assert (ranks[0].rank == ranks[1].rank).mean() > 0.97  # a tie may fall either way
    results = [json.loads((folder / "results.json").read_text())["stages"]["rl"]["metrics"] for folder in (one, other)]
    assert results[0] == pytest.approx(results[1], abs=0.03)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_are_one_run(processes, circle, alone, tmp_path):
    """Each with two devices, by launch/local.sh; files appear once, and every loss is the one process's."""
    output = finish(launch(processes, 2, circle, tmp_path / "run", "--config.mesh.fsdp=2"))
    assert f"{2 * processes} cpu device(s), {processes} process(es)" in output
    assert output.count("test set: 60 users") == 1
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_the_other_modes_of_several_processes_speak_and_write_once(circle, alone, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    alone_says = finish(launch(1, 2, circle, folder, "--config.mode=doctor"))
    several_say = finish(launch(2, 2, circle, folder, "--config.mode=doctor"))
    assert several_say.count("targets are bound by id") == alone_says.count("targets are bound by id") == 1

    (tmp_path / "histories.jsonl").write_text(
        '{"user": "a", "history": ["i3", "i4"]}\n{"user": "b", "history": ["i9"]}\n'
    )
    answers = []
    for processes in (1, 2):
        output = tmp_path / f"answers{processes}.jsonl"
        asked = (f"--config.recommend.input={tmp_path / 'histories.jsonl'}", f"--config.recommend.output={output}")
        assert finish(launch(processes, 2, circle, folder, "--config.mode=recommend", *asked)).count(str(output)) == 1
        answers.append([json.loads(line) for line in output.read_text().splitlines()])
    assert [line["user"] for line in answers[0]] == ["a", "b"]
    for one, two in zip(*answers, strict=True):
        assert [item["id"] for item in one["items"][:3]] == [item["id"] for item in two["items"][:3]]


@pytest.mark.slow
def test_a_pretrained_model_is_loaded_in_parts_and_exported_by_several_processes(circle, tmp_path):
    """Semantic ids as new tokens: the first loss is one process's, and so is every weight of an export."""
    source = tmp_path / "source"
    shape = {"num_layers": 2, "width": 32, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "ffn_width": 48}
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer_folder())
    model = ModelConfig(**shape, vocab_size=small_tokenizer().size + 4)
    save_pretrained(source, *init(model), add_files=tokenizer.save_pretrained)
    settings = (f"--config.model.pretrained={source}", "--config.sft.steps=3", "--config.mesh.data=1")
    several = (*settings, "--config.mesh.fsdp=4")  # every kernel lies in both processes

    one, two = tmp_path / "one", tmp_path / "two"
    finish(launch(1, 1, circle, one, *settings, "--config.mode=sft"))
    finish(launch(2, 2, circle, two, *several, "--config.mode=sft"))
    assert losses(two, "sft")[0] == pytest.approx(losses(one, "sft")[0], abs=1e-5)

    finish(launch(1, 1, circle, one, *settings, "--config.mode=export"))
    finish(launch(2, 2, circle, one, *several, "--config.mode=export", f"--config.export.path={two / 'export'}"))
    exported = [load_file(folder / "export" / "model.safetensors") for folder in (one, two)]
    assert exported[0].keys() == exported[1].keys()
    for name, tensor in load_file(source / "model.safetensors").items():
        np.testing.assert_array_equal(*(tensors[name] for tensors in exported))
        assert np.abs(exported[1][name][: len(tensor)] - tensor).max() > 1e-3, name  # it has learned


def wait_for_steps(started: subprocess.Popen, folder: pathlib.Path, count: int) -> None:
    """Returns when SFT has told of `count` steps."""
    deadline = time.time() + 600
    while not (folder / "metrics.jsonl").exists() or len(read_metrics(folder / "metrics.jsonl", "sft")) < count:
        assert started.poll() is None and time.time() < deadline, started.communicate()[0]
        time.sleep(0.1)


@pytest.mark.slow
def test_ctrl_c_ends_every_process_and_the_run_speaks_once(circle, tmp_path):
    folder = tmp_path / "run"
    started = launch(2, 1, circle, folder, *LONGER)
    wait_for_steps(started, folder, 3)
    started.send_signal(signal.SIGINT)
    output = finish(started, 130)
    assert output.count("interrupted: start the same command again to go on") == 1
    assert "Traceback" not in output and not (folder / ".lock").exists()


def test_sigterm_stops_every_process_at_one_step_and_another_mesh_goes_on(circle, tmp_path):
    folder, settings = tmp_path / "run", ("--config.mode=sft", "--config.sft.steps=100000", "--config.sft.saves=1")
    started = launch(2, 1, circle, folder, *settings)
    wait_for_steps(started, folder, 1)
    started.send_signal(signal.SIGTERM)
    assert "saved after step" in finish(started, 75)
    done = len(losses(folder, "sft"))
    again = launch(2, 2, circle, folder, *settings, "--config.mesh.fsdp=2")
    told = next(line for line in again.stdout if "goes on after step" in line)
    again.send_signal(signal.SIGTERM)
    finish(again, 75)
    assert f"goes on after step {done} of 100000" in told
    losses(folder, "sft")


@pytest.fixture(scope="module")
def uninterrupted(circle, tmp_path_factory) -> np.ndarray:
    """The losses of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(launch(2, 1, circle, folder, *LONGER))
    return losses(folder, "sft")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_process_is_killed_the_others_end_and_the_next_run_goes_on(circle, uninterrupted, tmp_path, killed):
    """The others end with an error, on CPUs by SIGABRT from JAX in two minutes; no step is lost, bit for bit."""
    started = launch(2, 1, circle, tmp_path / "run", *LONGER)
    wait_for_steps(started, tmp_path / "run", 150)
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(started.pid)], capture_output=True, text=True
    )
    (victim,) = [line for line in listed.stdout.splitlines() if f"--process_id={killed}" in line]
    os.kill(int(victim.split()[0]), signal.SIGKILL)
    started.communicate(timeout=300)
    assert started.returncode not in (0, 75)
    assert len(losses(tmp_path / "run", "sft")) < len(uninterrupted)
    assert "goes on after step" in finish(launch(2, 1, circle, tmp_path / "run", *LONGER))
    np.testing.assert_array_equal(losses(tmp_path / "run", "sft"), uninterrupted)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_processes_and_says_so(circle, uninterrupted, tmp_path):
    folder = tmp_path / "run"

    def interrupted(processes: int, devices: int, after: int) -> str:
        started = launch(processes, devices, circle, folder, *LONGER)
        wait_for_steps(started, folder, after)
        started.send_signal(signal.SIGTERM)
        return finish(started, 75)

    interrupted(2, 1, 100)
    assert "was written by 2 processes with 2 devices" in interrupted(1, 2, len(losses(folder, "sft")) + 100)
    assert "was written by 1 process with 2 devices" in interrupted(2, 2, len(losses(folder, "sft")) + 100)
    assert (
        "was written by 2 processes with 4 devices (mesh data 4, fsdp 1, tensor 1) "
        "and goes on with 2 processes with 2 devices (mesh data 2, fsdp 1, tensor 1)"
    ) in finish(launch(2, 1, circle, folder, *LONGER))
    np.testing.assert_allclose(losses(folder, "sft"), uninterrupted, atol=1e-5)


@pytest.mark.slow
def test_an_error_of_process_0_at_the_start_ends_all(circle, tmp_path):
    """Process 0 alone reads the data; the others do not wait for what will not come."""
    broken = shutil.copytree(circle, tmp_path / "broken")
    with open(broken / "circle.inter", "a") as file:
        file.write("no item\n")
    output = finish(launch(2, 1, broken, tmp_path / "run"), 1)
    assert "circle.inter, line " in output and "no value for 'item_id'" in output
    assert "error: preparing data and catalog failed on process 0, whose message says why" in output
    assert "Traceback" not in output


FAILING = '''"""The command line, in whose process 1 the 50th step meets an error of its own."""
import runpy
import sys

from wpauc_jax.training import state as steps

take, taken = steps.Step.__call__, []


def step(self, state, batch):
    taken.append(1)
    if len(taken) == 50 and "--process_id=1" in sys.argv:
        raise OSError(5, "Input/output error", "disk of process 1")
    return take(self, state, batch)


steps.Step.__call__ = step
runpy.run_module("wpauc_jax.main", run_name="__main__")
'''


@pytest.mark.slow
def test_an_error_of_one_process_alone_ends_all_within_a_minute(circle, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(FAILING)
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/usr/bin/env bash\nshift 2\nexec {sys.executable} {tmp_path / "failing.py"} "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = launch(2, 1, circle, tmp_path / "run", *LONGER, python=stand_in)
    wait_for_steps(started, tmp_path / "run", 40)
    begun = time.time()
    output, _ = started.communicate(timeout=300)
    assert started.returncode not in (0, 75)
    assert time.time() - begun < 60
    assert "error: [Errno 5] Input/output error: 'disk of process 1'" in output
