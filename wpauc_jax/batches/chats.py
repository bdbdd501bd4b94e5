"""A work directory keeps the chat template that it has rendered first.

Some templates read the clock. Without this, a run would have another prompt tomorrow.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from wpauc_jax.batches.title_tasks import INSTRUCTIONS
from wpauc_jax.catalog.tokenizer import Chat, Tokenizer
from wpauc_jax.config import PromptConfig
from wpauc_jax.data.errors import DataError
from wpauc_jax.runtime.files import atomic_path

FILE = "chats.json"


def keep_chats(
    config: PromptConfig,
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    say: Callable[[str], None],
    *,
    elsewhere: pathlib.Path | None = None,
) -> None:
    """From now on the tokenizer's chats are those of `folder`, where they are kept when they are rendered first.

    Another tokenizer, template or instruction has a chat of its own. What `folder` lacks may be `elsewhere`, the work
    directory that this one goes on from. Raises DataError for a damaged file.
    """
    if config.style != "chat":
        return
    path = folder / FILE
    kept = _read(path)
    given = _read(elsewhere / FILE) if elsewhere else []
    new, changed = [], False
    for instruction in (config.instruction, *INSTRUCTIONS.values()):
        text = instruction + "\n"
        facts = {"tokenizer": tokenizer.fingerprint, "template": tokenizer.template, "instruction": text}
        now = tokenizer.rendered(text)
        first = _find(kept, facts) or _find(given, facts) or now
        changed |= first != now
        tokenizer.remember(text, first)
        if not _find(kept, facts):
            new.append({**facts, "head": first[0], "tail": first[1]})
    if changed:
        say(
            f"the chat template of {tokenizer.path} gives another prompt now than when this run began, as one that "
            f"reads the clock does; the first one counts, from {path}"
        )
    if new:
        _write(path, kept + new, say)


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        chats = json.loads(path.read_text(encoding="utf-8"))["chats"]
        for chat in chats:
            if not all(type(token) is int for token in chat["head"] + chat["tail"]):
                raise ValueError("a token is no number")
        return chats
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and prompts are rendered anew, with the "
            "date of today where the chat template shows one"
        ) from error


def _find(chats: list[dict[str, Any]], facts: dict[str, str]) -> Chat | None:
    return next(((chat["head"], chat["tail"]) for chat in chats if chat.items() >= facts.items()), None)


def _write(path: pathlib.Path, chats: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"chats": chats}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:  # a finished run may lie on a disk that cannot be written to
        say(f"{path} cannot be written ({error.strerror}): a chat template that reads the clock is rendered anew")
