"""Progress tells rate and time left."""

import io

import pytest

from wpauc_jax.runtime.progress import Progress


@pytest.mark.parametrize(("total", "start", "lines"), [(1000, 0, 10), (1000, 950, 1), (7, 0, 7), (37, 0, 10)])
def test_plain_progress_prints_about_every_tenth_and_the_end(total, start, lines):
    out = io.StringIO()
    with Progress(total, "sft", start, unit="users", file=out) as progress:
        for _ in range(total - start):
            progress.update(1, loss=0.25)
    first, *printed = out.getvalue().splitlines()
    assert first == "sft: compiling"
    assert len(printed) == lines
    assert printed[-1].startswith(f"sft: {total}/{total} users (100%), ")
    assert printed[-1].endswith("users/s, 0:00:00 left, loss 0.25")


def test_plain_progress_rate_ignores_what_an_earlier_run_did(monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("wpauc_jax.runtime.progress.time.perf_counter", lambda: next(clock))
    out = io.StringIO()
    progress = Progress(1000, "rl", 400, unit="users", file=out)
    progress.update(100)
    assert out.getvalue() == "rl: compiling\nrl: 500/1000 users (50%), 10.0 users/s, 0:00:50 left\n"


def test_what_is_done_before_the_first_unit_is_said_once():
    out = io.StringIO()
    with Progress(4, "rl", file=out, doing="validating") as progress:
        progress.doing("compiling the RL step")
        progress.doing("compiling the RL step")
        progress.update(2)
        progress.doing("saving")  # later on a log has the steps alone
        progress.update(2)
    said = out.getvalue().splitlines()
    assert said[:2] == ["rl: validating", "rl: compiling the RL step"] and len(said) == 4
    assert "saving" not in out.getvalue()


def test_a_terminal_gets_a_bar_with_rate_and_time_left():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with Progress(4, "eval", unit="users", file=out) as progress:
        assert "compiling" in out.getvalue().split("\r")[-1]
        progress.doing("validating")
        assert "validating" in out.getvalue().split("\r")[-1]
        progress.note("half way")
        progress.update(4, ndcg=0.5)
    assert "eval: half way\n" in out.getvalue()
    last = out.getvalue().split("\r")[-1]
    assert (
        "compiling" not in last and "eval: 100%" in last and "4/4" in last and "users/s" in last and "ndcg 0.5" in last
    )
