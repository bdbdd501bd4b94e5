"""The tokenizer of a language model: what titles and prompts need of Hugging Face's."""

import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from wpauc_jax.config import ConfigError

_SLOT = "[the history stands here]"


class Tokenizer:
    """A byte-level tokenizer from a folder or a hub id; texts in, token ids out."""

    def __init__(self, path: str):
        self.path = path
        self._inner = _load(path)

    @property
    def size(self) -> int:
        """Token ids in use: all below this number."""
        return len(self._inner)

    @property
    def fingerprint(self) -> str:
        """sha256 of vocabulary, merges and rules."""
        return hashlib.sha256(self._inner.backend_tokenizer.to_str().encode()).hexdigest()

    @property
    def eos(self) -> int:
        """The token that ends a text. Raises ConfigError where there is none."""
        if self._inner.eos_token_id is None:
            raise ConfigError(f"the tokenizer {self.path} names no eos_token in its tokenizer_config.json")
        return self._inner.eos_token_id

    @functools.cached_property
    def newline(self) -> int:
        """The token of a line's end. Raises ConfigError where that is not one token."""
        tokens = self.encode(["\n"])[0]
        if len(tokens) != 1:
            raise ConfigError(f"the tokenizer {self.path} has no token of its own for a line's end")
        return tokens[0]

    @functools.cached_property
    def bos(self) -> tuple[int, ...]:
        """The tokens that this tokenizer puts before a text: one, or none."""
        first, bos = self._inner("a").input_ids[:1], self._inner.bos_token_id
        return (bos,) if first == [bos] else ()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's own tokens. What looks like a special token in a text is text."""
        return self._inner(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return self._inner.decode(list(tokens))

    def chat(self, instruction: str) -> tuple[list[int], list[int]]:
        """The chat template around a user's message that begins with `instruction`, up to the assistant's turn.

        Returns the tokens before and behind the place where the message goes on.
        Raises ConfigError where the tokenizer has no template, or one that changes the message.
        """
        if not self._inner.chat_template:
            raise ConfigError(f"the tokenizer {self.path} has no chat template; set prompt.style='list'")
        messages = [{"role": "user", "content": instruction + _SLOT}]
        text = self._inner.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        before, found, behind = text.partition(instruction + _SLOT)
        if not found:
            raise ConfigError(f"the chat template of {self.path} does not keep a user's message as it is")
        head, tail = (self._inner(part, add_special_tokens=False).input_ids for part in (before, behind))
        return head + self.encode([instruction])[0], tail


def _load(path: str) -> Any:
    # Its note that PyTorch is missing is true and wanted.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer  # takes two seconds, which only runs with text spend

    try:
        inner = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"no tokenizer in {path!r}; give a folder with tokenizer.json and tokenizer_config.json, or a hub id "
            f"({reason})"
        ) from error
    if not inner.is_fast:
        raise ConfigError(f"the tokenizer {path} has no tokenizer.json; only such fast tokenizers are supported")
    return inner
