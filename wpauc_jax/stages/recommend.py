"""Histories in, each user's Top-K items out; only items of the catalogue can come out."""

import json
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from wpauc_jax.batches.histories import read_histories
from wpauc_jax.batches.pipeline import history_batches
from wpauc_jax.config import ConfigError
from wpauc_jax.models import Params
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import atomic_path, is_same_file
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.runtime.sharding import batch_rows
from wpauc_jax.stages.workspace import Workspace


def recommend(work: Workspace, params: Params, *, say: Callable[[str], None]) -> pathlib.Path:
    """Answers `recommend.input`, in batches, as JSON lines {"user", "items": [{"id", "title", "score"}, ...]}.

    A score is the item's log-probability. A list is shorter than `recommend.top_k` only where the catalogue is. The
    output appears whole or not at all.
    """
    config = work.config.recommend
    if not config.input:
        raise ConfigError("recommend.input is empty; give a file of histories (JSON lines or .inter)")
    output = pathlib.Path(config.output or work.folder / "recommendations.jsonl")
    if is_same_file(config.input, output):
        raise ConfigError(f"recommend.output={str(output)!r} is recommend.input: the histories would be overwritten")
    histories = read_histories(config.input, work.dataset, unknown=config.unknown, say=say)
    if not is_main_process():
        for _ in _answers(work, params, histories):  # takes part in the search; the main process writes
            pass
        return output
    with (
        atomic_path(output) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        Progress(len(histories), "recommend", unit="users") as progress,
    ):
        for lines in _answers(work, params, histories):
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            progress.update(len(lines))
    say(f"recommendations for {len(histories)} users are in {output}")
    return output


def _answers(work: Workspace, params: Params, histories: list[tuple[str, np.ndarray]]) -> Iterator[list[dict]]:
    """One list of answers a batch. A batch has one of few shapes (`prompt.widths`), so that few programs serve all."""
    config, size = work.config, work.config.eval.batch_size
    width = max(config.eval.num_beams, config.recommend.top_k)
    search = work.search(width)
    batches = history_batches(work.builder, [items for _, items in histories], size, rows=batch_rows(size))
    for number, batch in enumerate(batches):
        found = search(params, batch)
        columns = (np.asarray(found.items), np.asarray(found.scores))
        yield [
            {"user": user, "items": _listed(work, *(column[row, : config.recommend.top_k] for column in columns))}
            for row, (user, _) in enumerate(histories[number * size : (number + 1) * size])
        ]


def _listed(work: Workspace, items: np.ndarray, scores: np.ndarray) -> list[dict]:
    return [
        {"id": work.dataset.item_ids[item], "title": work.dataset.titles[item], "score": round(float(score), 6)}
        for item, score in zip(items, scores, strict=True)
        if item >= 0
    ]
