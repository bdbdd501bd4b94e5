"""The load generator against a real server with a small untrained model."""

import json
import subprocess
import sys

import pytest

from benchmarks.serving import _summary


def test_a_summary_counts_users_by_the_clock_and_takes_quantiles():
    found = _summary([0.1] * 98 + [0.5, 0.9], 10.0, 3)
    assert found["users_per_s"] == 10.0 and found["p50_s"] == pytest.approx(0.1) and found["dropped"] == 3
    assert 0.5 <= found["p99_s"] <= 0.9


@pytest.mark.slow
def test_closed_and_open_loops_are_measured():
    command = [sys.executable, "-m", "benchmarks.serving", "--items=60", "--clients=1,4", "--seconds=0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loops = json.loads(done.stdout.splitlines()[-1])["60"]["loops"]
    assert [row["loop"] for row in loops] == ["closed", "closed", "open", "open"]
    assert all(row["users_per_s"] > 0 and 0 < row["p50_s"] <= row["p99_s"] for row in loops)
