"""Batches passed over after faults: the run that remains is the run on data which never held them."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from wpauc_jax.training.skips import Skips
from wpauc_jax.training.storage import CheckpointError


def course(skips, steps):
    """The number of the batch that each update takes, 1, 2, ... without any skip."""
    numbers, skipped = [], 0
    for done in range(steps):
        skipped += skips.at(done)
        assert skipped == skips.before(done)
        numbers.append(done + skipped + 1)
    return numbers


@hypothesis.given(faults=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8)), max_size=6))
def test_each_fault_takes_back_its_steps_and_their_batches_and_nothing_else(tmp_path_factory, faults):
    skips = Skips(tmp_path_factory.mktemp("skips") / "skipped.json")
    for step, back in faults:
        before = course(skips, 40)
        after = max(step - back, 0)
        skips.add(step, after, f"step {step}")
        now = course(skips, 40)
        assert now[:after] == before[:after]  # what is kept
        assert now[after] == before[step - 1] + 1  # goes on behind the batch that went wrong
    assert len(skips.faults) == len(faults)


def test_the_file_says_the_same_again(tmp_path):
    path = tmp_path / "skipped.json"
    skips = Skips(path)
    assert course(skips, 5) == [1, 2, 3, 4, 5] and not path.exists()
    skips.add(3, 1, "toy: loss is nan in step 3, batch 3")
    again = Skips(path)
    assert course(again, 5) == course(skips, 5) == [1, 4, 5, 6, 7]
    assert again.faults == ["toy: loss is nan in step 3, batch 3"]
    assert json.loads(path.read_text()) == {"skips": {"1": 2}, "faults": again.faults}


def test_only_one_process_writes(tmp_path):
    skips = Skips(tmp_path / "skipped.json", writes=False)
    skips.add(3, 2, "a fault")
    assert course(skips, 3) == [1, 2, 4] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"skips": {}}', '{"skips": {"x": 1}, "faults": []}', '{"skips": [], "faults": []}', "[" * 9999],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "skipped.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"skipped\.json is damaged .* Delete .* to train the stage anew"):
        Skips(path)
