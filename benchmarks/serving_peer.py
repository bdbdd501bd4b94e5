"""The questions of `benchmarks.serving` to Hugging Face's `generate`, on the same export folder. Needs no JAX.

`benchmarks.serving --peer` starts it. It reads JSON lines from its input, {"history": [ids], "k": 10}, and writes one
JSON line for each batch: its seconds, and the ids of each user's list. The model is in float32. Beams, temperature and
the rest are those of the folder's generation_config.json. `prefix_allowed_tokens_fn` looks a prefix up in a dictionary,
as the trainers on Hugging Face do; where histories are left out, it also asks whether the history holds all below it.
"""

import collections
import json
import pathlib
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Generate:
    """Lists of a decoder's export folder, by `generate`."""

    def __init__(self, folder: pathlib.Path):
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._form = json.loads((folder / "prompt.json").read_text())
        with (folder / "items.jsonl").open(encoding="utf-8") as lines:
            self._items = [json.loads(line) for line in lines]
        self._numbers = {item["id"]: number for number, item in enumerate(self._items)}
        self._named = {tuple(item["tokens"]): item["id"] for item in self._items}
        self._below: dict[tuple[int, ...], int] = collections.Counter()  # how many items begin so
        legal: dict[tuple[int, ...], set[int]] = collections.defaultdict(set)
        for tokens in self._named:
            for length, token in enumerate(tokens):
                legal[tokens[:length]].add(token)
                self._below[tokens[: length + 1]] += 1
        self._legal = {prefix: sorted(after) for prefix, after in legal.items()}

    @torch.no_grad()
    def lists(self, questions: list[dict[str, Any]]) -> list[list[str]]:
        """The ids of each user's items, the best first. All questions have the same k."""
        prompts = [self._prompt(question["history"]) for question in questions]
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        closed = [self._closed(question["history"]) for question in questions]
        end, k = self._model.generation_config.eos_token_id, questions[0]["k"]

        def allowed(user: int, sequence: torch.Tensor) -> list[int]:
            prefix = tuple(sequence[width:].tolist())
            after = self._legal.get(prefix, [])
            return [token for token in after if (*prefix, token) not in closed[user]] or [end]

        found = self._model.generate(
            tokens,
            attention_mask=mask,
            pad_token_id=0,
            num_return_sequences=k,
            prefix_allowed_tokens_fn=allowed,
        )
        answers = [self._id(answer) for answer in found[:, width:].tolist()]
        return [answers[start : start + k] for start in range(0, len(answers), k)]

    def _prompt(self, history: list[str]) -> list[int]:
        form = self._form
        prompt = list(form["head"])
        for name in history[-form["max_history"] :]:
            tokens = self._items[self._numbers[name]]["tokens"]
            tokens = tokens[:-1] if form["end"] >= 0 else tokens
            prompt += form["lead"] + tokens + ([form["line_end"]] if form["line_end"] >= 0 else [])
        return prompt + form["tail"] + form["lead"]

    def _closed(self, history: list[str]) -> set[tuple[int, ...]]:
        """The prefixes below which every item is in the history."""
        held: dict[tuple[int, ...], int] = collections.Counter()
        for name in set(history) if self._form["exclude_history"] else ():
            tokens = self._items[self._numbers[name]]["tokens"]
            for length in range(1, len(tokens) + 1):
                held[tuple(tokens[:length])] += 1
        return {prefix for prefix, count in held.items() if count == self._below[prefix]}

    def _id(self, answer: list[int]) -> str:
        """What an answer names; what stands behind a whole item is passed over."""
        names = (self._named.get(tuple(answer[:length])) for length in range(1, len(answer) + 1))
        return next(name for name in names if name is not None)


def main() -> None:
    folder, batch = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    questions = [json.loads(line) for line in sys.stdin]
    model = Generate(folder)
    model.lists(questions[:batch])  # the first call allocates
    for start in range(0, len(questions), batch):
        began = time.perf_counter()
        lists = model.lists(questions[start : start + batch])
        print(json.dumps({"seconds": time.perf_counter() - began, "lists": lists}), flush=True)


if __name__ == "__main__":
    main()
