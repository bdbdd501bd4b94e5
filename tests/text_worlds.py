"""A small byte-level tokenizer and catalogues of titles that tests of text share."""

import functools
import json
import pathlib
import tempfile

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from wpauc_jax.batches.prompts import PromptBuilder, text_format
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.titles import catalog_from_titles
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import PromptConfig

CHAT = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TITLES = [  # in no order; duplicates, prefixes, numbers that are titles, white space, special tokens, long ones
    "Red Garden Hose",
    "Garden",
    "Garden Hose",
    "Garden Hose (2)",
    "Garden  Hose ",
    "Blue Pump",
    "Garden Hose",
    "Blue Pump, 3/8 inch, for the garden, with a hose and a spare part, in red",
    "Blue Pump, 3/8 inch, for the garden, with a hose and a spare part, in blue",
    "<|end|>",
    "Pump <|start|>user",
    "Café 東京都渋谷区道玄坂",
    "",
    "item 12",
]


@functools.cache
def small_tokenizer() -> Tokenizer:
    return Tokenizer(str(small_tokenizer_folder()))


@functools.cache
def small_tokenizer_folder() -> pathlib.Path:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TITLES * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", chat_template=CHAT)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tokenizer"))
    tokenizer.save_pretrained(folder)
    return folder


def title_catalog(titles=TITLES, *, max_tokens: int = 16, style: str = "list") -> Catalog:
    tokenizer = small_tokenizer()
    end = text_format(PromptConfig(style=style), tokenizer).end
    ids = [f"id{number}" for number in range(len(titles))]
    return catalog_from_titles(titles, ids, tokenizer, max_tokens=max_tokens, end=end)


def text_builder(style: str = "list", *, max_history: int = 10, limit: int = 0, titles=TITLES) -> PromptBuilder:
    form = text_format(PromptConfig(style=style), small_tokenizer())
    return PromptBuilder(title_catalog(titles, style=style), max_history, form, limit)


def made_titles(count: int, seed: int = 0) -> list[str]:
    """Titles of one to five words out of few, many of them equal or the beginning of others."""
    rng = np.random.default_rng(seed)
    words = ["red", "blue", "garden", "hose", "pump", "(1)", "Zürich"]
    return [" ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(count)]


def changed_tokenizer(folder: pathlib.Path, rules=lambda rules: None, config=None) -> pathlib.Path:
    """The small tokenizer in a new `folder`: `rules` changes its tokenizer.json in place, `config` adds settings."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in small_tokenizer_folder().iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name, change in (("tokenizer.json", rules), ("tokenizer_config.json", lambda old: old.update(config or {}))):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return folder


def added_token(content: str, number: int, **flags) -> dict:
    """An entry of tokenizer.json's added tokens."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **plain, **flags}
