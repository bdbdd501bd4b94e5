"""Histories in, each user's Top-K items out; only items of the catalog can come out."""

import json
import pathlib
from collections.abc import Callable, Iterator

from wpauc_jax.batches.histories import History, read_histories
from wpauc_jax.config import ConfigError, RecommendConfig
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import atomic_path, is_same_file
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.stages.recommender import Recommender
from wpauc_jax.stages.run import Prepared


def asked(prepared: Prepared, *, say: Callable[[str], None]) -> list[History]:
    """The histories of `recommend.input`, which are read before a model is."""
    config = prepared.config.recommend
    if not config.input:
        raise ConfigError("recommend.input is empty; give a file of histories (JSON lines or .inter)")
    output = _output(config, prepared.folder)
    if is_same_file(config.input, output):
        raise ConfigError(f"recommend.output={str(output)!r} is recommend.input: the histories would be overwritten")
    return read_histories(config.input, prepared.items.item_ids, unknown=config.unknown, say=say)


def recommend(
    recommender: Recommender,
    histories: list[History],
    config: RecommendConfig,
    folder: pathlib.Path,
    *,
    say: Callable[[str], None],
) -> pathlib.Path:
    """Answers, in batches, as JSON lines {"user", "stage", "items": [{"id", "title", "score"}, ...]}.

    `stage` is the one whose parameters answer; where settings are others than in training, "changes" lists them. A
    score is the item's log-probability, or what `eval.search` and `eval.guide` make of it. A list is shorter than
    `recommend.top_k` only where the catalog is. The output appears whole or not at all, by default in `folder`.
    """
    output = _output(config, folder)
    if not is_main_process():
        for _ in _answers(recommender, histories, config.top_k):  # takes part in the search; the main process writes
            pass
        return output
    with (
        atomic_path(output) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        Progress(len(histories), "recommend", unit="users", doing="compiling the search") as progress,
    ):
        for lines in _answers(recommender, histories, config.top_k):
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            progress.update(len(lines))
    say(f"recommendations for {len(histories)} users are in {output}")
    return output


def _output(config: RecommendConfig, folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(config.output or folder / "recommendations.jsonl")


def _answers(recommender: Recommender, histories: list[History], k: int) -> Iterator[list[dict]]:
    """One list of answers a batch."""
    facts = recommender.answering.facts()
    users = iter([user for user, _ in histories])
    for answers in recommender.batches([items for _, items in histories], k):
        yield [
            {
                "user": next(users),
                **facts,
                "items": [item._asdict() | {"score": round(item.score, 6)} for item in answer],
            }
            for answer in answers
        ]
