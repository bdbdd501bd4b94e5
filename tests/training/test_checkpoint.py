"""Checkpoints come back bit for bit, refuse another run's, and ignore what a kill left half-written."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wpauc_jax.training.checkpoint import (
    Best,
    BestCheckpoint,
    Checkpoints,
    changed_settings,
    drop_leftovers,
    finished_step,
    load_best,
    load_params,
)
from wpauc_jax.training.state import TrainState
from wpauc_jax.training.storage import CheckpointError

META = {"config": {"rl": {"target_k": 3, "recall_at": (1, 3)}}, "catalog": "c0ffee"}


def make_state(seed=0, width=4):
    params = {"w": jax.random.normal(jax.random.key(seed), (3, width)), "layers": [jnp.zeros(2, jnp.bfloat16)]}
    return TrainState(jnp.asarray(seed, jnp.int32), params, optax.adamw(0.1).init(params), None)


POSITION = {"next_index": 3}


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_state_position_and_record_come_back(tmp_path):
    state = make_state(7)
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        checkpoints.save(7, state, POSITION, {"best": 0.1 + 0.2, "bad_evals": 2})
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        restored = checkpoints.restore(make_state())
    assert restored.step == 7 and restored.record == {"best": 0.1 + 0.2, "bad_evals": 2}
    assert restored.position == POSITION and restored.notes == ()
    assert_same(restored.state, state)


def test_nothing_saved_is_none(tmp_path):
    with Checkpoints(tmp_path / "new", meta=META) as checkpoints:
        assert checkpoints.restore(make_state()) is None


def test_donating_the_state_right_after_save_does_not_touch_what_is_saved(tmp_path):
    add = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = add({"w": jnp.arange(1 << 20, dtype=jnp.float32)})
    wanted = np.array(state["w"], copy=True)
    with Checkpoints(tmp_path, meta={}) as checkpoints:
        checkpoints.save(1, state, POSITION)
        for _ in range(50):
            state = add(state)
        restored = checkpoints.restore(state)
    np.testing.assert_array_equal(restored.state["w"], wanted)


def test_restore_reads_only_shapes_of_state_like(tmp_path):
    state = make_state(2)
    like = make_state(3)
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        checkpoints.save(2, state, POSITION)
        jax.tree.map(lambda leaf: leaf.delete(), like)
        assert_same(checkpoints.restore(like).state, state)


def test_restored_state_can_be_donated_and_lies_where_it_lay(tmp_path):
    state = make_state(2)
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        checkpoints.save(2, state, POSITION)
        restored = checkpoints.restore(state).state
    assert restored.params["w"].sharding == state.params["w"].sharding
    expected = np.asarray(state.params["w"]) + 1
    add = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    np.testing.assert_array_equal(add(restored).params["w"], expected)


def test_only_the_last_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2, meta=META) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step), POSITION, {"at": step})
        assert checkpoints.records() == {2: {"at": 2}, 3: {"at": 3}}


def test_a_resumed_run_may_save_its_first_step_again(tmp_path):
    for finished in (False, True):
        with Checkpoints(tmp_path, meta=META) as checkpoints:
            checkpoints.restore(make_state())
            checkpoints.save(1, make_state(1), POSITION, {"finished": finished})
            assert checkpoints.records() == {1: {"finished": finished}}
            assert_same(checkpoints.restore(make_state()).state, make_state(1))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({**META, "catalog": "decade"}, r"catalog: 'c0ffee' then, 'decade' now"),
        (
            {"config": {"rl": {"target_k": 5, "recall_at": [1, 3]}}, "catalog": "c0ffee"},
            r"config\.rl\.target_k: 3 then, 5",
        ),
        ({**META, "data": None}, r"data: absent then, None now"),
    ],
)
def test_another_runs_checkpoint_is_refused_by_field(tmp_path, meta, message):
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        checkpoints.save(1, make_state(1), POSITION)
    with Checkpoints(tmp_path, meta=meta) as checkpoints, pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.restore(make_state())
    assert str(caught.value).count(" then, ") == 1
    assert str(tmp_path / "1") in str(caught.value)


def test_a_checkpoint_of_a_version_with_fewer_settings_is_this_runs(tmp_path):
    """What the record lacks counts as its default, an old spelling as the new one; another value is refused by name."""
    finished = {"finished": True, "best_step": 1}
    with Checkpoints(tmp_path / "run", meta={"sft": {"loss": "catalogue"}}) as checkpoints:
        checkpoints.save(1, make_state(1), POSITION, finished)
    with BestCheckpoint(tmp_path / "best") as best:
        best.save(1, make_state(1).params, {})
    now = {"sft": {"loss": "catalog", "patience": 3}, "scoring": "constrained"}
    with Checkpoints(tmp_path / "run", meta=now) as checkpoints:
        assert checkpoints.restore(make_state()).step == 1
    assert finished_step(tmp_path / "run", tmp_path / "best", now) == 1
    assert changed_settings(tmp_path / "run", now) == []
    other = {"sft": {"loss": "catalog", "patience": 5}}
    assert finished_step(tmp_path / "run", tmp_path / "best", other) is None
    assert changed_settings(tmp_path / "run", other) == ["sft.patience: 3 then, 5 now"]
    with (
        Checkpoints(tmp_path / "run", meta=other) as checkpoints,
        pytest.raises(CheckpointError, match=r"sft\.patience: 3 then, 5 now"),
    ):
        checkpoints.restore(make_state())


def test_other_arrays_are_refused_by_name(tmp_path):
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        checkpoints.save(1, make_state(1), POSITION)
        with pytest.raises(CheckpointError, match=r"params\.w: float32\[3, 4\], wanted as float32\[3, 5\]"):
            checkpoints.restore(make_state(width=5))


def test_a_half_written_checkpoint_is_removed_and_the_one_before_used(tmp_path):
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), POSITION)
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")  # killed before the renaming
    shutil.copytree(tmp_path / "1", tmp_path / "3")
    (tmp_path / "3" / "hashes.json").unlink()  # killed on a file system that cannot rename
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        restored = checkpoints.restore(make_state())
        assert restored.step == 1
        assert restored.notes == (
            f"{tmp_path / '3'} is damaged: hashes.json is missing: it was not written to its end; "
            "it is removed, and the one before used",
        )
        checkpoints.save(2, make_state(2), POSITION)
        checkpoints.save(3, make_state(3), POSITION)
        assert_same(checkpoints.restore(make_state()).state, make_state(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_an_older_one_that_a_kill_left_half_removed_goes(tmp_path):
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), POSITION, {"at": step})
    shutil.rmtree(tmp_path / "1" / "meta")
    with Checkpoints(tmp_path, meta=META) as checkpoints:
        assert checkpoints.restore(make_state()).step == 2
        assert checkpoints.records() == {2: {"at": 2}}
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(("reach", "wanted"), [(1, {"4", "6"}), (5, {"2", "4", "6"})])
def test_older_ones_that_a_kill_after_a_save_left_go(tmp_path, reach, wanted):
    with Checkpoints(tmp_path / "run", keep=9, meta=META) as checkpoints:
        for step in (1, 2, 4, 6):
            checkpoints.save(step, make_state(step), POSITION)
    shutil.copytree(tmp_path / "run", tmp_path / "at its end")
    with Checkpoints(tmp_path / "run", reach=reach, meta=META) as checkpoints:
        assert checkpoints.restore(make_state()).step == 6
    drop_leftovers(tmp_path / "at its end", reach=reach)
    for folder in ("run", "at its end"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == wanted


def test_best_parameters_come_back_with_their_metrics(tmp_path):
    with BestCheckpoint(tmp_path) as best:
        best.save(4, make_state(4).params, {"ndcg@10": 0.5})
        best.save(8, make_state(8).params, {"ndcg@10": 0.1 + 0.2})
    params, found = load_best(tmp_path, make_state().params)
    assert found == Best(8, {"ndcg@10": 0.1 + 0.2})
    assert_same(params, make_state(8).params)
    assert_same(load_params(tmp_path, make_state().params), make_state(8).params)


def test_best_keeps_what_checkpoints_count_on_and_rewinds(tmp_path):
    with BestCheckpoint(tmp_path) as best:
        for step in (1, 2, 3, 4):
            best.save(step, make_state(step).params, {})
        best.wait()
        best.prune({2})
        assert best.steps() == [2, 4]
        best.rewind(2)
        assert best.steps() == [2]
        best.rewind(-1)
        assert best.steps() == []


def test_reading_the_best_leaves_a_running_writers_files_alone(tmp_path):
    with BestCheckpoint(tmp_path) as best:
        best.save(1, make_state(1).params, {})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    load_params(tmp_path, make_state().params)
    assert half.exists()


def test_missing_and_other_models_parameters_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="train this stage first"):
        load_params(tmp_path / "none", make_state().params)
    assert not (tmp_path / "none").exists()
    with BestCheckpoint(tmp_path) as best:
        best.save(1, make_state(1).params, {})
    like = {"w": jnp.zeros((3, 4)), "head": jnp.zeros(2)}
    with pytest.raises(CheckpointError) as caught:
        load_params(tmp_path, like)
    assert "head: missing, wanted as float32[2]" in str(caught.value)
    assert "layers.0: not wanted, found as bfloat16[2]" in str(caught.value)
