"""Reads the files of a tokenizer. It runs no code from them, and says in one line what is wrong with them."""

import json
import os
import pathlib
from typing import Any

from wpauc_jax.config import ConfigError

_FILES = (  # those that hold one JSON object
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
_MEND = "copy the tokenizer's files again from where they came"


def load_tokenizer(path: str) -> Any:
    """The tokenizer of `transformers` in a folder or under a hub id.

    Raises ConfigError where there is none, where a file is damaged, and where only code beside it could make it: such
    code is not run, and nobody is asked.
    """
    folder = pathlib.Path(path)
    for name in _FILES:
        if (folder / name).is_file():
            _check_file(folder / name)
    # Its note that PyTorch is missing is true and wanted.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer  # takes two seconds, which only runs with text spend

    try:
        inner = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # whatever its files make of it: damaged ones raise errors of any type
        raise _refusal(path, error) from error
    if not inner.is_fast:
        raise ConfigError(f"the tokenizer {path} has no tokenizer.json; only such fast tokenizers are supported")
    _check_numbers(path, inner)
    return inner


def names_code(path: str) -> bool:
    """Whether a folder's settings name code that would make its tokenizer."""
    file = pathlib.Path(path, "tokenizer_config.json")
    return file.is_file() and "auto_map" in json.loads(file.read_text(encoding="utf-8"))


def file_numbers(path: str) -> dict[str, int]:
    """The numbers that tokenizer.json gives to added tokens; none where there is no such file here."""
    file = pathlib.Path(path, "tokenizer.json")
    added = json.loads(file.read_text(encoding="utf-8")).get("added_tokens") if file.is_file() else None
    return {token["content"]: token["id"] for token in added or []}


def _check_file(file: pathlib.Path) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: it is no JSON ({error}); {_MEND}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is damaged: it holds no JSON object, but {content!r:.40}; {_MEND}")
    if file.name == "tokenizer.json" and not isinstance(content.get("model"), dict):
        raise ConfigError(f"{file} is damaged: its 'model' is {content.get('model')!r:.40}; {_MEND}")


def _refusal(path: str, error: Exception) -> ConfigError:
    reason = next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
    if "trust_remote_code" in str(error):
        return ConfigError(
            f"the tokenizer {path} needs code of its own (auto_map in its tokenizer_config.json or config.json), which "
            "this program does not run; give a tokenizer that tokenizer.json describes alone"
        )
    if pathlib.Path(path, "tokenizer.json").is_file():
        return ConfigError(f"the tokenizer in {path} cannot be loaded ({type(error).__name__}: {reason:.200}); {_MEND}")
    return ConfigError(
        f"no tokenizer in {path!r}; give a folder with tokenizer.json and tokenizer_config.json, or a hub id "
        f"({reason:.200})"
    )


def _check_numbers(path: str, inner: Any) -> None:
    """The tokens that begin and end a text must be the tokenizer's own: else they are added, under new numbers."""
    file, config = pathlib.Path(path, "tokenizer.json"), pathlib.Path(path, "tokenizer_config.json")
    if not file.is_file():
        return
    from tokenizers import Tokenizer

    listed = json.loads(config.read_text(encoding="utf-8")).get("added_tokens_decoder") if config.is_file() else None
    own = Tokenizer.from_file(str(file))
    names = {token.get("content") for token in (listed or {}).values()}
    for kind in ("bos_token", "eos_token"):
        name = getattr(inner, kind)
        if name is not None and name not in names and own.token_to_id(name) is None:
            raise ConfigError(f"{config} names {kind}={name!r}, a token that {file.name} does not have; {_MEND}")
