"""Metric lines survive kills."""

import json

import numpy as np
import pytest

from wpauc_jax.runtime.metric_lines import MetricWriter, read_metrics


def test_lines_hold_stage_step_time_and_plain_values(tmp_path):
    with MetricWriter(tmp_path / "run" / "metrics.jsonl") as writer:
        writer.write("rl", 3, {"loss": np.float32(0.1), "mass": np.array([0.5, np.nan]), "kl": float("inf"), "n": 4})
    (line,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert (line["stage"], line["step"], line["n"]) == ("rl", 3, 4)
    assert line["loss"] == float(np.float32(0.1))
    assert line["mass"] == [0.5, None]
    assert line["kl"] is None
    assert line["time"] > 1e9


def test_a_line_is_on_disk_at_once(tmp_path):
    writer = MetricWriter(tmp_path / "m.jsonl")
    writer.write("sft", 1, {"loss": 1.0})
    assert len(read_metrics(tmp_path / "m.jsonl")) == 1
    writer.close()


def test_rewind_drops_later_lines_of_this_stage_only(tmp_path):
    path = tmp_path / "m.jsonl"
    with MetricWriter(path) as writer:
        for stage in ("sft", "rl"):
            for step in (1, 2, 3):
                writer.write(stage, step, {"loss": step / 8})
        writer.rewind("rl", 1)
        writer.write("rl", 2, {"loss": 0.5})
    assert [(x["stage"], x["step"], x["loss"]) for x in read_metrics(path)] == [
        ("sft", 1, 0.125),
        ("sft", 2, 0.25),
        ("sft", 3, 0.375),
        ("rl", 1, 0.125),
        ("rl", 2, 0.5),
    ]
    assert [x["step"] for x in read_metrics(path, "rl")] == [1, 2]


def test_half_a_last_line_is_cut_off(tmp_path):
    path = tmp_path / "m.jsonl"
    whole = json.dumps({"stage": "sft", "step": 1}) + "\n"
    path.write_text(whole + '{"stage": "sft", "st')
    with MetricWriter(path) as writer:
        assert path.read_text() == whole
        writer.write("sft", 2, {})
    assert [x["step"] for x in read_metrics(path)] == [1, 2]


FOREIGN = [
    "[1]",
    "{",
    "",
    '"text"',
    '{"stage": "sft"}',
    '{"stage": 3, "step": 1}',
    '{"stage": "sft", "step": "2"}',
    '{"stage": "sft", "step": 2, "loss": "high"}',
    "[" * 100_000,
    "\x00\ufffd",
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_foreign_line_is_told_and_left_out(tmp_path, capsys, foreign):
    path = tmp_path / "m.jsonl"
    lines = ['{"stage": "sft", "step": 1, "loss": 0.5}', foreign, '{"stage": "sft", "step": 2, "loss": null}']
    path.write_text("\n".join(lines) + "\n")
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    told = capsys.readouterr().err
    assert told == f"{path}: 1 of 3 lines hold no metrics (the first is line 2); left out\n"
    with MetricWriter(path) as writer:
        writer.rewind("sft", 1)
        writer.write("sft", 2, {"loss": 0.25})
    assert [line["loss"] for line in read_metrics(path)] == [0.5, 0.25]
    assert capsys.readouterr().err == told  # once: the file is sound again


def test_a_missing_file_is_told(tmp_path):
    told = []
    assert read_metrics(tmp_path / "m.jsonl", say=told.append) == []
    assert told == [f"{tmp_path / 'm.jsonl'} is missing: there are no training curves"]


def test_bytes_that_are_no_text_are_left_out(tmp_path, capsys):
    (tmp_path / "m.jsonl").write_bytes(b'\xff\xfe{\n{"stage": "rl", "step": 3}\n')
    assert [line["step"] for line in read_metrics(tmp_path / "m.jsonl", "rl")] == [3]
    assert "line 1" in capsys.readouterr().err


def test_a_disabled_writer_touches_nothing(tmp_path):
    with MetricWriter(tmp_path / "m.jsonl", enabled=False) as writer:
        writer.write("sft", 1, {"loss": 1.0})
        writer.rewind("sft", 0)
        writer.sync()
    assert not list(tmp_path.iterdir())
