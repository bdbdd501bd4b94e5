"""What a client asks, checked: every mistake is one line that names the user and the field."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_ITEMS = 512  # of a history and of `exclude` together
MOST_USERS = 1000  # of one request


class QuestionError(ValueError):
    """A question that cannot be answered; `status` is that of HTTP."""

    def __init__(self, text: str, status: int = 422) -> None:
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Question:
    """One history, how many items are wanted, and which may not answer."""

    user: Any  # as the client named it; None where it did not
    history: np.ndarray  # int64[n], item numbers, the latest last
    k: int
    left_out: np.ndarray  # int64[m], items that may not answer


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a question is checked against."""

    places: Mapping[str, int]  # the number of each raw id
    exclude_history: bool  # what holds where a question does not say
    most_k: int
    most_users: int = MOST_USERS  # of one request


def read_questions(body: bytes, rules: Rules) -> tuple[list[Question], bool]:
    """The questions of a request's body, and whether it asks for one user alone. Raises QuestionError."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"the body is no JSON ({type(error).__name__}: {error})", 400) from error
    if not isinstance(content, dict):
        raise QuestionError('the body must be an object, as in {"history": ["B001"], "k": 10}', 400)
    if "users" not in content:
        return [_question(content, "", rules)], True
    users = content["users"]
    if not isinstance(users, list) or not 1 <= len(users) <= rules.most_users:
        raise QuestionError(f"users must be a list of 1 to {rules.most_users} objects", 400)
    return [_question(user, f"users[{place}]: ", rules) for place, user in enumerate(users)], False


def _question(content: Any, where: str, rules: Rules) -> Question:
    if not isinstance(content, dict):
        raise QuestionError(f"{where}it must be an object", 400)
    unknown = content.keys() - {"user", "history", "k", "exclude_history", "exclude"}
    if unknown:
        raise QuestionError(f"{where}{sorted(unknown)[0]!r} is unknown; use user, history, k, exclude_history, exclude")
    k, rule = content.get("k", 10), content.get("exclude_history", rules.exclude_history)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= rules.most_k:
        raise QuestionError(f"{where}k={_shown(k)} must be a whole number from 1 to {rules.most_k}")
    if not isinstance(rule, bool):
        raise QuestionError(f"{where}exclude_history={_shown(rule)} must be true or false")
    history = _items(content.get("history", []), f"{where}history", rules)
    exclude = _items(content.get("exclude", []), f"{where}exclude", rules)
    left_out = np.unique(np.concatenate([history if rule else history[:0], exclude]))
    if len(history) + len(exclude) > MOST_ITEMS:
        raise QuestionError(f"{where}history and exclude have more than {MOST_ITEMS} items")
    return Question(content.get("user"), history, k, left_out)


def _items(given: Any, name: str, rules: Rules) -> np.ndarray:
    if not isinstance(given, list):
        raise QuestionError(f"{name} must be a list of item ids")
    if len(given) > MOST_ITEMS:
        raise QuestionError(f"{name} has more than {MOST_ITEMS} items")
    numbers = []
    for item in given:
        text = str(item) if isinstance(item, int) and not isinstance(item, bool) else item
        if not isinstance(text, str) or text not in rules.places:
            raise QuestionError(f"{name} has the item {_shown(item)}, which the catalog lacks")
        numbers.append(rules.places[text])
    return np.array(numbers, np.int64)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
