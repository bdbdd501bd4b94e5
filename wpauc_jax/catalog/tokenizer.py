"""The tokenizer of a language model, as far as titles and prompts need it."""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from wpauc_jax.catalog.plain_text import NEVER, plain_rules, rules_with_tokens
from wpauc_jax.catalog.tokenizer_files import file_numbers, load_tokenizer, names_code
from wpauc_jax.config import ConfigError

_SLOT = "[the history stands here]"
_UNKNOWN = "\ufffd"  # stands for what is no character

Chat = tuple[list[int], list[int]]  # the tokens before and behind the place where a user's message goes on


class Tokenizer:
    """A byte-level tokenizer from a folder or a hub id; texts in, token ids out."""

    def __init__(self, path: str):
        self.path = path
        self._inner = load_tokenizer(path)
        self._backend = self._inner.backend_tokenizer
        self._backend.no_truncation()  # a tokenizer.json may hold a length for another task
        self._backend.no_padding()
        self._chats: dict[str, Chat] = {}
        try:
            rules = self._rules()
            self._plain = _backend(plain_rules(rules))
            self.unknown = _unknown(rules)  # the token of what cannot be spelled; -1 where there is none
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the tokenizer {path} cannot be used: its tokenizer.json is damaged ({error})"
            ) from error

    @functools.cached_property
    def vocabulary(self) -> dict[str, int]:
        """The numbers of all tokens, added ones too."""
        return self._inner.get_vocab()

    @functools.cached_property
    def size(self) -> int:
        """Token ids in use: all below this number, perhaps with gaps."""
        return 1 + max((*self.vocabulary.values(), *file_numbers(self.path).values()))

    @property
    def fingerprint(self) -> str:
        """sha256 of vocabulary, merges and rules."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    @property
    def remarks(self) -> list[str]:
        """What a reader of the run should know of this tokenizer, in lines."""
        filed = file_numbers(self.path).items()
        moved = {name: number for name, number in filed if self.vocabulary.get(name, number) != number}
        code = f"the tokenizer {self.path} names code of its own (auto_map), which is not run: its files alone count"
        return [code] * names_code(self.path) + [
            f"warning: the tokenizer.json of {self.path} gives {name!r} the number {number}, but every program that "
            f"loads it gets {self.vocabulary[name]}: that number is used"
            for name, number in moved.items()
        ]

    @property
    def eos(self) -> int:
        """The token that ends a text. Raises ConfigError where there is none."""
        if self._inner.eos_token_id is None:
            raise ConfigError(f"the tokenizer {self.path} names no eos_token in its tokenizer_config.json")
        return self._inner.eos_token_id

    @property
    def reserved(self) -> dict[str, int]:
        """The tokens that begin, end or fill a text or stand for the unknown, by the names of these roles."""
        roles = ("bos_token", "eos_token", "pad_token", "unk_token")
        numbers = {role: getattr(self._inner, f"{role}_id") for role in roles}
        return {role: number for role, number in numbers.items() if number is not None}

    @functools.cached_property
    def newline(self) -> int:
        """The token of a line's end. Raises ConfigError where that is not one token."""
        tokens = self.encode(["\n"])[0]
        if len(tokens) != 1 or tokens[0] == self.unknown:
            raise ConfigError(f"the tokenizer {self.path} has no token of its own for a line's end")
        return tokens[0]

    @functools.cached_property
    def bos(self) -> tuple[int, ...]:
        """The tokens that this tokenizer puts before a text. Raises ConfigError where it changes the text itself."""
        whole, own = (self._backend.encode("a", add_special_tokens=special).ids for special in (True, False))
        places = [place for place in range(len(whole)) if whole[place : place + len(own)] == own]
        if not places:
            raise ConfigError(f"the tokenizer {self.path} changes a text when it adds its special tokens")
        return tuple(whole[: places[0]])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's own tokens. What looks like an added token in a text is text; half a character is U+FFFD."""
        found = self._plain.encode_batch([_whole(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return self._inner.decode(list(tokens))

    def chat(self, instruction: str) -> Chat:
        """The chat template around a user's message that begins with `instruction`, up to the assistant's turn.

        Returns the tokens before and behind the place where the message goes on: those of `remember`, or as the
        template has them now. Raises ConfigError where the tokenizer has no template, or one that changes the message.
        """
        if instruction not in self._chats:
            self._chats[instruction] = self.rendered(instruction)
        return self._chats[instruction]

    def remember(self, instruction: str, chat: Chat) -> None:
        """From now on `chat` gives this for the instruction. A template may read the clock; a run may go on later."""
        self._chats[instruction] = chat

    @property
    def template(self) -> str:
        """sha256 of what a chat depends on besides the vocabulary: the template and the names of special tokens."""
        return hashlib.sha256(repr((self._inner.chat_template, self._inner.special_tokens_map)).encode()).hexdigest()

    def rendered(self, instruction: str) -> Chat:
        """As `chat`, but always as the template has it now."""
        instruction = _whole(instruction)
        if not self._inner.chat_template:
            raise ConfigError(f"the tokenizer {self.path} has no chat template; set prompt.style='list'")
        messages = [{"role": "user", "content": instruction + _SLOT}]
        try:
            text = self._inner.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is a program, and fails as programs do
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"the chat template of {self.path} fails ({type(error).__name__}: {reason:.200}); mend it, or set "
                "prompt.style='list'"
            ) from error
        before, found, behind = text.partition(instruction + _SLOT)
        if not found:
            raise ConfigError(f"the chat template of {self.path} does not keep a user's message as it is")
        head, tail = (self._backend.encode(_whole(part), add_special_tokens=False).ids for part in (before, behind))
        return head + self.encode([instruction])[0], tail

    def with_codes(self, numbers: dict[str, int]) -> Any:
        """The tokenizer of `transformers` with codes as tokens, by name under exactly these numbers.

        Raises ConfigError where it cannot have them.
        """
        wanted = self.vocabulary | numbers
        codes = load_tokenizer(self.path)
        codes.add_tokens(list(numbers))
        if _stored(codes) == wanted:
            return codes
        # It numbers new tokens by how many it has, and its numbers have gaps: so its model gets them by number first.
        codes = load_tokenizer(self.path)
        try:
            codes._tokenizer = _backend(rules_with_tokens(self._rules(), wanted))
        except ValueError as error:
            raise ConfigError(
                f"the tokenizer {self.path} cannot have codes under the model's numbers ({error})"
            ) from error
        codes.add_tokens(list(numbers))
        found = _stored(codes)
        wrong = next((name for name in wanted if found.get(name) != wanted[name]), None)
        if wrong is not None:
            raise ConfigError(
                f"the tokenizer {self.path} would have {wrong!r} under number {found.get(wrong)}, the model has it "
                f"under {wanted[wrong]}"
            )
        return codes

    def _rules(self) -> dict[str, Any]:
        return json.loads(self._backend.to_str())


def _backend(rules: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(rules))
    except Exception as error:  # the library raises no type of its own
        raise ValueError(str(error).split("\n")[0]) from error


def _unknown(rules: dict[str, Any]) -> int:
    """The number of the model's token for what it does not know, -1 where it has none."""
    model = rules["model"]
    if not isinstance(model["vocab"], dict):
        return -1 if model.get("unk_id") is None else model["unk_id"]
    return model["vocab"].get(model.get("unk_token"), -1)


def _stored(tokenizer: Any) -> dict[str, int]:
    """The numbers of all tokens as they are when the tokenizer has been written and read again."""
    return _backend(json.loads(tokenizer.backend_tokenizer.to_str())).get_vocab(with_added_tokens=True)


def _whole(text: str) -> str:
    """The text with the halves of a character joined, and with U+FFFD for a half alone and for what is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace(NEVER, _UNKNOWN)
