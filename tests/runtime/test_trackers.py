"""Trackers get the numbers of metric lines: what they wrote is read back."""

import struct
import sys
import types

import numpy as np
import pytest

from wpauc_jax.config import ConfigError
from wpauc_jax.runtime.metric_lines import MetricWriter, read_metrics
from wpauc_jax.runtime.trackers import TRACKERS, Tracked, check_tracking, open_tracker

SETTINGS = {"seed": 3, "rl": {"anchor": 2}}


def write_some(name, folder):
    """Three lines of two stages, of which a resumed run takes the last step again."""
    with MetricWriter(folder / "metrics.jsonl", tracker=open_tracker(name, Tracked(folder, SETTINGS))) as writer:
        writer.write("sft", 1, {"loss": np.float32(2.5), "weights": np.ones(3), "lost": float("nan")})
        writer.write("sft", 2, {"loss": 1.5})
        writer.write("rl/valid", 0, {"recall@3": 0.25})
    with MetricWriter(folder / "metrics.jsonl", tracker=open_tracker(name, Tracked(folder, SETTINGS))) as writer:
        writer.rewind("sft", 1)
        writer.write("sft", 2, {"loss": 1.25})
    assert [(line["stage"], line["step"]) for line in read_metrics(folder / "metrics.jsonl")] == [
        ("sft", 1),
        ("rl/valid", 0),
        ("sft", 2),
    ]


def records(content, header, sizes):
    """The records of a file after its first `header` bytes: `sizes` reads the length at a place, and where data are."""
    while header < len(content):
        start, length, after = sizes(content, header)
        yield content[start : start + length]
        header = start + length + after


def test_tensorboard_is_read_back(tmp_path):
    from tensorboardX.proto import event_pb2

    write_some("tensorboard", tmp_path)
    found, purged = [], []
    for path in sorted((tmp_path / "tensorboard").rglob("events*"), key=lambda path: path.stat().st_mtime_ns):
        stage = str(path.parent.relative_to(tmp_path / "tensorboard"))
        for record in records(path.read_bytes(), 0, lambda text, at: (at + 12, *struct.unpack_from("<Q", text, at), 4)):
            event = event_pb2.Event.FromString(record)
            found += [(stage, event.step, value.tag, value.simple_value) for value in event.summary.value]
            if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
                purged.append((stage, event.step))
    assert sorted(found) == [
        ("rl/valid", 0, "recall_3", 0.25),  # TensorBoard's names have no @
        ("sft", 1, "loss", 2.5),
        ("sft", 2, "loss", 1.25),
        ("sft", 2, "loss", 1.5),
    ]
    assert purged == [("sft", 2)]  # TensorBoard hides what stands from step 2 on in the older file


def test_wandb_without_a_network_is_read_back(tmp_path, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write_some("wandb", tmp_path / "run")
    found, ids, configs = [], set(), []
    for path in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        sizes = lambda text, at: (at + 7, *struct.unpack_from("<H", text, at + 4), 0)  # noqa: E731
        for content in records(path.read_bytes(), 7, sizes):
            record = Record.FromString(content)
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            found += [(name, items["sft/step"], value) for name, value in items.items() if name == "sft/loss"]
            if record.HasField("run"):
                ids.add(record.run.run_id)
                configs += [item.value_json for item in record.run.config.update if item.key == "seed"]
    assert sorted(found) == [("sft/loss", "1", "2.5"), ("sft/loss", "2", "1.25"), ("sft/loss", "2", "1.5")]
    assert ids == {(tmp_path / "run" / "tracking" / "run_id").read_text()} and set(configs) == {"3"}


def test_trackio_gets_values_by_stage_and_a_name_of_its_own(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, metrics, step):
            calls.append((metrics, step))

        def finish(self):
            calls.append("finish")

    def init(**options):
        calls.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "trackio", types.SimpleNamespace(init=init))
    write_some("trackio", tmp_path / "run")
    name = f"run-{(tmp_path / 'run' / 'tracking' / 'run_id').read_text()}"
    assert [call["name"] for call in calls if "name" in call] == [name, name] and calls.count("finish") == 2
    assert calls[0]["config"] == SETTINGS and calls[0]["resume"] == "allow"
    assert calls[1:4] == [({"sft/loss": 2.5}, 1), ({"sft/loss": 1.5}, 2), ({"rl/valid/recall@3": 0.25}, 0)]


PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}


def test_every_tracker_with_a_package_is_known_here():
    assert {name for name, kind in TRACKERS.items() if kind.package} == set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    for wants in (lambda: check_tracking(name), lambda: open_tracker(name, Tracked(tmp_path, {}))):
        with pytest.raises(ConfigError, match=rf"tracking={name} needs a package: pip install 'wpauc_jax\[{name}\]'"):
            wants()
    check_tracking("none")
    open_tracker(name, Tracked(tmp_path, {}), enabled=False).write("sft", 1, {"loss": 1.0})  # another process writes
    assert not any(path.name != "tracking" for path in tmp_path.iterdir())


def test_wandb_that_cannot_begin_is_one_line(tmp_path, monkeypatch):
    import wandb

    def init(**options):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(ConfigError, match=r"tracking=wandb: No API key configured\.; see `wandb login`, or set WANDB"):
        open_tracker("wandb", Tracked(tmp_path, {}))
