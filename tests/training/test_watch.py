"""Faults are told from what is merely large, and warnings come where something is wrong, and not again and again."""

import numpy as np
import pytest

from wpauc_jax.config import FaultConfig
from wpauc_jax.training.watch import Watch

QUIET = FaultConfig(window=20)


def warned_at(watch, steps):
    """The indices of the steps at which a warning comes, and the last text."""
    told = [(i, text) for i, values in enumerate(steps) for text in watch.warnings(values)]
    return [i for i, _ in told], told[-1][1] if told else ""


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"loss": np.float32("nan"), "grad_norm": 1.0}, "loss is nan"),
        ({"loss": 1.0, "grad_norm": np.float32("inf")}, "grad_norm is inf"),
        ({"loss": np.float32(-1001.0)}, "loss is -1001, beyond faults.max_loss=1000"),
        ({"loss": 999.0, "kl": float("nan")}, None),
        ({"targets": 3}, None),
    ],
)
def test_what_is_a_fault(values, fault):
    assert Watch(QUIET).fault(values) == fault


def test_without_a_limit_only_what_is_not_finite_is_a_fault():
    watch = Watch(FaultConfig(max_loss=0.0))
    assert watch.fault({"loss": 1e30}) is None and watch.fault({"loss": float("inf")}) == "loss is inf"


def test_a_spike_is_told_once_in_a_window():
    noise = np.random.default_rng(0).normal(3.0, 0.1, 60)
    losses = [{"loss": loss} for loss in noise]
    assert warned_at(Watch(QUIET), losses) == ([], "")
    for spike in (30, 31, 55):
        losses[spike] = {"loss": 6.0 + spike / 100}
    told, text = warned_at(Watch(QUIET), losses)
    assert told == [30, 55]
    assert text.startswith("loss 6.55 is ") and "above the median 3.0" in text and "of the last 20 steps" in text
    assert warned_at(Watch(FaultConfig(window=20, spike=0.0)), losses)[0] == []


def test_no_spike_is_seen_before_a_window_is_full_nor_in_a_loss_that_only_wobbles():
    early = [{"loss": loss} for loss in [3.0] * 10 + [30.0] + [3.0] * 20]
    assert warned_at(Watch(QUIET), early)[0] == []
    constant = [{"loss": loss} for loss in [3.0] * 25 + [3.1] + [3.0] * 5]  # 3% above a median without any deviation
    assert warned_at(Watch(QUIET), constant)[0] == []
    assert warned_at(Watch(QUIET), [{"loss": loss} for loss in [3.0] * 25 + [3.4]])[0] == [25]


def test_groups_that_teach_nothing_are_told_with_their_hit_rate():
    dead = {"loss": 0.0, "dead_groups": np.float32(0.99), "hit_rate": np.float32(0.01)}
    alive = {"loss": 0.0, "dead_groups": np.float32(0.9), "hit_rate": np.float32(0.1)}
    told, text = warned_at(Watch(QUIET), [dead] * 50)
    assert told == [19, 39]  # when the window is full, and a window later
    assert "99.0% of the last 20 steps' groups taught nothing (their target was found in 1.0%)" in text
    assert warned_at(Watch(QUIET), [alive, dead] * 25)[0] == []  # 94.5% on the mean
    assert warned_at(Watch(QUIET), [{"loss": 0.0, "dead_groups": 1.0}] * 50)[0] == []
    assert warned_at(Watch(FaultConfig(window=20, dead=0.0)), [dead] * 50)[0] == []
