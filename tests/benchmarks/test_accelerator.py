"""The one command for an accelerator: its parts in order, how it goes on, its page, and all of it on tiny shapes."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from benchmarks import accelerator
from benchmarks.accelerator_page import page
from benchmarks.accelerator_parts import PARTS
from benchmarks.shapes import EOS, SHAPES, target_rows

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch):
    """The parts that are run, in order; the answer of each stands in `answers`."""
    calls, answers = [], {}

    def run_part(name, *, tiny, seconds):
        calls.append(name)
        return answers.get(name, {"wall_s": 1.0, "ok": True, "relative_difference": {"all": 0.0}, **FILLED})

    monkeypatch.setattr(accelerator, "run_part", run_part)
    return calls, answers


FILLED = {
    **{"matmul_flops_per_s": {"float32": 1e12}, "copy_bytes_per_s": 1e9, "peak_memory_bytes": 2**30, "users": 8},
    **{"batch_tokens": 8, "tokens_per_s": 1.0, "targets_per_s": 1.0, "rows": [], "ratio": 2.0, "ratio_spread": [1, 3]},
    **{"step_s": 0.5, "peer_step_s": 1.0},
}


def test_every_part_has_a_time_and_checks_come_first():
    assert set(accelerator.PARTS) == set(PARTS)
    assert tuple(accelerator.PARTS)[1:4] == accelerator.CHECKS


def test_parts_that_are_done_are_not_done_again(asked, tmp_path, capsys):
    calls, answers = asked
    answers["decode"] = {"error": "took longer than 1 s", "wall_s": 1.0}
    assert accelerator.measure(tmp_path, tiny=True, only=[], seconds=100) == 3
    assert calls == list(accelerator.PARTS)
    assert "- decode: took longer than 1 s" in (tmp_path / "accelerator.md").read_text()
    calls.clear(), answers.clear()
    assert accelerator.measure(tmp_path, tiny=True, only=[], seconds=100) == 0
    assert calls == ["decode"]
    assert "did not end" not in (tmp_path / "accelerator.md").read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parts"].keys() == accelerator.PARTS.keys()


def test_what_the_studies_did_is_kept_in_one_file(tmp_path):
    run = tmp_path / "studies/objectives_office/base/seed0"
    run.mkdir(parents=True)
    arm = tmp_path / "studies/objectives_office/arms/programs"
    arm.mkdir(parents=True)
    for folder in (run, arm):
        (folder / "results.json").write_text("{}")
    (tmp_path / "studies/objectives_office/programs").mkdir()
    (tmp_path / "studies/objectives_office/programs/large").write_text("compiled")
    assert accelerator.study(tmp_path, [], data="", seconds=1, extra=[]) == 0
    with tarfile.open(tmp_path / "studies.tar.gz") as tar:
        files = {file.name.removeprefix("studies/objectives_office/") for file in tar if file.isfile()}
    assert files == {"base/seed0/results.json", "arms/programs/results.json"}


def test_nothing_is_timed_where_a_check_fails(asked, tmp_path, capsys):
    calls, answers = asked
    answers["attention"] = {"ok": False, "relative_difference": {"cudnn": 0.5}, "wall_s": 1.0}
    assert accelerator.measure(tmp_path, tiny=True, only=[], seconds=100) == 1
    assert calls == ["machine", "models", "attention"]
    assert "attention is not right on this machine" in capsys.readouterr().out
    assert "WRONG" in (tmp_path / "accelerator.md").read_text()


def test_time_that_is_over_is_said_with_what_is_left(asked, tmp_path, capsys):
    assert accelerator.measure(tmp_path, tiny=True, only=[], seconds=5) == 3
    assert asked[0] == []
    assert "goes on with machine, models" in capsys.readouterr().out


def test_a_page_says_what_does_not_fit():
    rows = [{"users": 8, "group": 16, "does_not_fit": True}]
    text = page({"versions": {"jax": "1"}, "tiny": False, "parts": {"rl_mini": {"rows": rows}}})
    assert "| mini | 8 | 16 | does not fit |" in text


def test_a_part_that_takes_too_long_keeps_its_rows(monkeypatch, tmp_path):
    rows = [{"users": 8, "group": 16, "step_s": 0.1, "users_per_s": 80.0, "share": 0.5, "program_bytes": 2**30}]
    line = json.dumps({"rows": [rows[0] | {"compile_s": 30.0}]})
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\necho '{line}'\nprintf '{{\"rows'\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(accelerator.sys, "executable", str(slow))
    found = accelerator.run_part("rl_mini", tiny=True, seconds=2)
    assert found["error"] == "took longer than 2 s"
    text = page({"versions": {"jax": "1"}, "tiny": False, "parts": {"rl_mini": found}})
    assert "| mini | 8 | 16 | 100.0 | 80.0 | 0.50 | 1.00 | 30 |" in text and "- rl_mini: took longer" in text
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    assert accelerator.run_part("rl_mini", tiny=True, seconds=1).keys() == {"error", "wall_s"}


def test_rows_of_targets_end_with_the_target():
    shape = SHAPES["mini"]
    tokens, lengths = target_rows(shape, 50, max_history=3, seed=1)
    size = shape.levels + 1
    assert set(lengths) == {2 * size, 3 * size, 4 * size}  # 1 to 3 items before it
    for row, length in zip(tokens, lengths, strict=True):
        assert (row[:length] > 0).all() and not row[length:].any() and row[length - 1] == EOS


@pytest.mark.slow
def test_all_parts_run_on_tiny_shapes(tmp_path):
    names = [name for name in PARTS if not name.startswith("peer_")]  # which need PyTorch
    command = [ROOT / "benchmarks" / "accelerator.sh", tmp_path, "--tiny", "--seconds=1500", "--only", *names]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "accelerator.json").read_text())
    assert set(found["parts"]) == set(names)
    text = (tmp_path / "accelerator.md").read_text()
    assert text.count("| right |") == 3 and "tiny shapes" in text and "| qwen15 | 2 | 4 |" in text
