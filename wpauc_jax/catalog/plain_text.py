"""A tokenizer's rules without its added tokens. Under these rules every text is text, whatever it spells."""

import re
from typing import Any

Rules = dict[str, Any]  # what a tokenizer.json holds

# No text holds this sign: `Tokenizer.encode` replaces it. So no text holds what a token is renamed to.
NEVER = "\uffff"

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how a model with byte_fallback names a byte


def plain_rules(rules: Rules) -> Rules:
    """Rules under which no text gives the number of an added token: neither a special one nor one of another kind.

    Added tokens leave the list of those that are cut out of a text, whatever their flags are. In the model's vocabulary
    they keep their numbers under names that no text holds, and merges that would build them go. Two kinds that are not
    special control nothing, and a text may need them: white space, such as a line's end, stays an added token, and a
    single character stays in the model. Nothing is put around a text or cut from it.
    """
    model, added = rules["model"], rules["added_tokens"]
    kept = [token for token in added if not token["special"] and token["content"].isspace()]
    hidden = {token["content"] for token in added if token["special"] or len(token["content"]) > 1}
    hidden -= {token["content"] for token in kept}
    if model.get("byte_fallback"):
        hidden = {name for name in hidden if not _BYTE.fullmatch(name)}
    names = {name: f"{NEVER}{number}" for number, name in enumerate(sorted(hidden))}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        spaces = {token["content"]: token["id"] for token in kept}
        vocabulary = {names.get(name, name): number for name, number in (spaces | vocabulary).items()}
    else:  # a Unigram model's: pieces with their scores, numbered by their places
        known = {piece for piece, *_ in vocabulary}
        kept = [token for token in kept if token["content"] in known]
        vocabulary = [[names.get(piece, piece), score] for piece, score in vocabulary]
    model = model | {"vocab": vocabulary}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        prefix = len(model.get("continuing_subword_prefix") or "")
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, hidden, prefix)]
    none = dict.fromkeys(("post_processor", "truncation", "padding"))
    return rules | none | {"model": model, "added_tokens": kept}


def _touches(merge: str | list[str], hidden: set[str], prefix: int) -> bool:
    """Whether a merge takes one of the hidden tokens, or makes one."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return not hidden.isdisjoint((left, right, left + right[prefix:]))


def rules_with_tokens(rules: Rules, numbers: dict[str, int]) -> Rules:
    """Rules whose model knows tokens under given numbers; no merge builds those that it did not know.

    Raises ValueError for a model whose tokens are numbered by their places.
    """
    model = rules["model"]
    if not isinstance(model["vocab"], dict):
        raise ValueError("its model numbers tokens by their places in a list")
    return rules | {"model": model | {"vocab": model["vocab"] | numbers}}
