"""Spans of a run: what is nested is counted once."""

import sys
import threading
import types

import pytest

from benchmarks.end_to_end import WATCHED, programs
from benchmarks.timeline import Recorder, Span, by_part


def test_a_span_inside_another_is_counted_once():
    spans = [Span(0, 10, "run"), Span(1, 5, "SFT"), Span(2, 4, "compiling"), Span(2.5, 3, "files"), Span(6, 9, "test")]
    assert by_part(spans) == {"run": 3, "SFT": 2, "compiling": 1.5, "files": 0.5, "test": 3}


def test_a_span_that_sticks_out_is_cut():
    assert by_part([Span(0, 4, "a"), Span(3, 6, "b"), Span(6, 7, "b")]) == {"a": 3, "b": 2}


def test_a_function_is_watched_until_the_end_and_its_error_passes(monkeypatch):
    class Store:
        def save(self, fails):
            if fails:
                raise ValueError("full")
            return "saved"

    monkeypatch.setitem(sys.modules, "shop", types.SimpleNamespace(Store=Store))
    recorder = Recorder()
    end = recorder.watch("shop", "Store.save", lambda _, fails: "broken" if fails else "files")
    assert Store().save(False) == "saved"
    with pytest.raises(ValueError, match="full"):
        Store().save(True)
    thread = threading.Thread(target=Store().save, args=(False,))
    thread.start()
    thread.join()
    end()
    Store().save(False)
    assert [span.part for span in recorder.spans] == ["files", "broken"]  # not the thread's, none after the end


def test_what_the_end_to_end_benchmark_watches_is_there():
    for module, path, part in WATCHED:
        Recorder().watch(module, path, part)()


def test_programs_are_summed_by_their_function():
    spans = [Span(0, 5, "tracing", "step"), Span(1, 2, "tracing", "inner"), Span(5, 8, "compiling", "jit(step)")]
    assert programs(spans) == [
        {"name": "step", "times": 1, "seconds": 7},
        {"name": "inner", "times": 0, "seconds": 1},
    ]
