"""The times of items in batches, and a whole run whose model takes them."""

import dataclasses

import numpy as np
import pytest

from tests.data_worlds import circle, dataset_of
from wpauc_jax.batches.pipeline import eval_batches, history_batches, prompt_batches, sft_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import sft_rows
from wpauc_jax.catalog import catalog_from_codes
from wpauc_jax.config import CatalogConfig, Config, ConfigError, DataConfig, EvalConfig, ModelConfig, SftConfig
from wpauc_jax.data.dataset import Dataset, positions
from wpauc_jax.data.errors import DataError
from wpauc_jax.modes import run

CATALOG = catalog_from_codes(np.arange(40)[:, None], [40])


def world() -> tuple[Dataset, PromptBuilder]:
    """Times in milliseconds."""
    dataset = dataset_of([3, 9, 6, 4])
    dataset = dataclasses.replace(dataset, time=dataset.time * 700, ticks=1000)
    return dataset, PromptBuilder(CATALOG, 3, timed=True)


def since(dataset: Dataset, first: int, count: int) -> list[int]:
    """Whole seconds since the first of some interactions."""
    return [int(dataset.time[first + k] - dataset.time[first]) // 1000 for k in range(count)]


def test_prompts_say_when_their_items_were():
    dataset, builder = world()
    samples = positions(dataset, "train")
    feed = next(iter(prompt_batches(dataset, builder, samples, 4, seed=0)))
    for prompts, ids in [
        (feed.batch.prompts, feed.ids),
        *((batch.prompts, batch.ids) for batch in eval_batches(dataset, builder, samples, 4)),
    ]:
        for row, sample in enumerate(ids.sample):
            first = max(dataset.offsets[ids.user[row]], sample - 3)
            count = sample - first
            wanted = [0, *since(dataset, first, count)]
            assert prompts.times[row].tolist() == wanted + [0] * (prompts.tokens.shape[1] - len(wanted))
            assert prompts.tokens[row, 1 : 1 + count].tolist() == CATALOG.tokens[dataset.item[first:sample], 0].tolist()


def test_rows_of_sft_say_when_their_items_were():
    dataset, builder = world()
    packed = sft_rows(dataset, builder, dataset.train_lengths(), 12)
    fed = next(iter(sft_batches(packed, len(packed), seed=0)))
    batch, seen = fed.batch, 0
    for row in range(len(packed)):
        for segment, user in enumerate(fed.ids.user[row][fed.ids.user[row] >= 0], start=1):
            inside = batch.segments[row] == segment
            tokens, times = batch.tokens[row, inside][1:], batch.times[row, inside]
            own = slice(dataset.offsets[user], dataset.offsets[user + 1])
            of_user = CATALOG.tokens[dataset.item[own], 0]
            places = [at for at in range(len(of_user)) if of_user[at : at + len(tokens)].tolist() == tokens.tolist()]
            wanted = [[0, *since(dataset, own.start + at, len(tokens))] for at in places]
            assert times.tolist() in wanted
            seen += 1
        assert not batch.times[row][batch.segments[row] == 0].any()
    assert seen == len(packed.pieces) > len(packed)


def test_histories_alone_have_no_times_and_data_without_a_clock_are_refused():
    dataset, builder = world()
    assert next(history_batches(builder, [np.array([1, 2])], 2)).times is None
    with pytest.raises(DataError, match=r"model.time_buckets needs times, and these data only have an order"):
        eval_batches(dataclasses.replace(dataset, ticks=0), builder, positions(dataset, "test"), 2)[0]
    with pytest.raises(ConfigError, match=r"model.time_buckets=8 needs prompt.max_tokens=0"):
        Config(
            model=ModelConfig(family="hstu", time_buckets=8),
            catalog=CatalogConfig(ids="atomic"),
            prompt=dataclasses.replace(Config().prompt, max_tokens=9),
        )


def test_a_run_takes_times_and_says_where_they_are_missing(tmp_path, capsys):
    circle(tmp_path, items=12, users=30, shortest=6, longest=8)
    config = Config(
        mode="all",
        data=DataConfig(source="recbole", path=str(tmp_path), k_core=0, max_history=4),
        catalog=CatalogConfig(ids="atomic"),
        model=ModelConfig(
            family="hstu",
            num_layers=1,
            width=16,
            num_heads=2,
            num_kv_heads=2,
            head_dim=8,
            time_buckets=8,
            num_positions=8,
        ),
        sft=SftConfig(batch_size=8, steps=30, evals=1, saves=1),
        rl=dataclasses.replace(Config().rl, epochs=0.0),
        eval=EvalConfig(num_beams=5, batch_size=16, recall_at=(1, 3), ndcg_at=(3,)),
    )
    run(config, tmp_path / "run")
    assert "sft" in capsys.readouterr().out
    histories = tmp_path / "histories.jsonl"
    histories.write_text('{"user": "u", "history": ["i1", "i2"]}\n')
    asks = dataclasses.replace(config.recommend, input=str(histories), top_k=3)
    run(dataclasses.replace(config, mode="recommend", recommend=asks), tmp_path / "run")
    assert "histories come without times here, so the model answers" in capsys.readouterr().err

    # The same where the run guides the search of one that takes no times.
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, family="sasrec", time_buckets=0))
    run(dataclasses.replace(plain, mode="sft"), tmp_path / "plain")
    guided = dataclasses.replace(plain.eval, guide=str(tmp_path / "run"), guide_share=0.5)
    run(dataclasses.replace(plain, mode="recommend", eval=guided, recommend=asks), tmp_path / "plain")
    said = capsys.readouterr().err
    assert "so the guide answers without its biases by time" in said and "so the model answers" not in said
