"""The snippet of docs/models.md that searches in `transformers`, and a NumPy reading of the search that it calls."""

import functools
import importlib.util
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.worlds import forward
from wpauc_jax.models import Params, Policy, load_pretrained

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "models.md"
HAS_TORCH = importlib.util.find_spec("torch") is not None
JUNK = -1e9  # the score there of a beam that is none
WIDTH = 32  # one for all, as each is compiled


def snippet() -> list[str]:
    """The text of the page's two pieces of Python: what may follow, in NumPy; and the search, which needs PyTorch."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2 and "torch" not in blocks[0] and "import torch" in blocks[1]
    return blocks


def rules(folder: pathlib.Path) -> dict[str, Any]:
    """The names that the first piece makes of an exported folder."""
    names: dict[str, Any] = {"folder": folder}
    exec(snippet()[0], names)
    return names


@functools.cache
def exported(folder: pathlib.Path) -> tuple[Policy, Params]:
    return load_pretrained(folder, dtype="float32")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def beam_search(
    folder: pathlib.Path,
    history: list[int],
    *,
    num_beams: int,
    settings: dict[str, Any],
    renormalize: bool = True,
    penalty: float = 0.0,
) -> list[tuple[int, float]]:
    """(item, score), the best first, as `generate` finds them with the rules of the page's first piece.

    As `GenerationMixin._beam_search` of transformers 5.23 does it for one prompt: the log of a softmax over the
    vocabulary; -inf for a token that is not allowed; with `renormalize` the log of a softmax once more; the best
    2 * num_beams continuations, of which those that end count if they are among the first num_beams; a finished score
    is divided by its length to the power of `penalty`. It goes on to the end: stopping early changes no result there.
    """
    names, (policy, params) = rules(folder), exported(folder)
    prompt, end, length = names["prompt_of"](history), settings["eos_token_id"], settings["max_new_tokens"]
    closed = names["closed_by"](history)
    running, scores = [[]] * num_beams, np.array([0.0, *[JUNK] * (num_beams - 1)])
    finished: list[tuple[float, list[int]]] = [(JUNK, [])] * num_beams
    for step in range(1, length + 1):
        rows = np.zeros((num_beams, WIDTH), np.int32)  # causal: what stands behind does not matter
        for row, answer in zip(rows, running, strict=True):
            row[: len(prompt) + len(answer)] = [*prompt, *answer]
        logits = np.asarray(forward(policy, params, jnp.asarray(rows)), np.float64)[:, len(prompt) + step - 2]
        logps, mask = log_softmax(logits), np.full(logits.shape, -np.inf)
        for beam, answer in enumerate(running):
            mask[beam, names["allowed_after"](answer, end, closed)] = 0
        logps = log_softmax(logps + mask) if renormalize else logps + mask
        totals = (logps + scores[:, None]).ravel()
        best = np.argsort(-totals, kind="stable")[: 2 * num_beams]
        grown = [[*running[place // logps.shape[1]], int(place % logps.shape[1])] for place in best]
        done = np.array([answer[-1] == end or step == length for answer in grown])
        ended = [(totals[best[i]] / step**penalty, grown[i]) for i in range(num_beams) if done[i]]
        finished = sorted([*finished, *ended], key=lambda pair: -pair[0])[:num_beams]
        goes_on = np.argsort(-(totals[best] + JUNK * done), kind="stable")[:num_beams]
        running, scores = [grown[i] for i in goes_on], (totals[best] + JUNK * done)[goes_on]
    found = [(names["item_at"](answer), float(score)) for score, answer in finished if score > JUNK / 2]
    assert all(item is not None for item, _ in found)
    return [(item["item"], score) for item, score in found]


def run_snippet(folder: pathlib.Path, history: list[int], top_k: int) -> list[tuple[int, float]]:
    """(item, score), as the page's own text finds them with PyTorch."""
    names: dict[str, Any] = {"folder": folder, "history": history, "top_k": top_k}
    for block in snippet():
        exec(block, names)
    return [(item["item"], score) for item, score in names["ranked"]]
