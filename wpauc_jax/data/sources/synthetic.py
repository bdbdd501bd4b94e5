"""A world whose law is known: items with topics and titles, users of several kinds, and the best ranking there is.

A user is of one kind, which it keeps. Its next item, after item i, is
  with probability `follow`, the successor of i: the items of a topic stand in one circle;
  otherwise an item of a topic: with probability `stay` the topic of i, else one drawn from the taste of the kind.
Of a topic's items the k-th most popular is drawn in proportion to (k + 1) ** -skew. The first item is drawn from the
stationary law of this chain, so that the last items of a history have the law of a whole one. Then

    p(next | history) = sum over kinds of p(kind | history) p(next | last item, kind)

is exact for a history of any length, its start unknown. No ranking beats sorting by it, in Recall@K, NDCG@K or WPAUC,
for any K or window (one target a list), whatever is trained on however much data.
"""

import dataclasses
import functools
import hashlib

import numpy as np
import polars as pl

from wpauc_jax.config import SyntheticConfig
from wpauc_jax.data.errors import Rejects
from wpauc_jax.data.tables import RawData

_NOUNS = ("lamp", "kettle", "rope", "drum", "chair", "boot", "tent", "brush", "clock", "saw", "vase", "cable")
_COLOURS = ("red", "blue", "green", "white", "black", "grey", "brown", "golden", "violet", "orange")
_STATIONARY = 1e-13  # how close the law of a topic's items comes to its limit; each step brings it nearer by `follow`


@dataclasses.dataclass(frozen=True)
class World:
    """I items of T topics and Z kinds of users. Items are numbers 0 .. I-1; their raw ids are these numbers."""

    config: SyntheticConfig
    topic: np.ndarray  # int64[I]
    successor: np.ndarray  # int64[I], a permutation within each topic
    share: np.ndarray  # float64[I], an item's probability within its topic
    taste: np.ndarray  # float64[Z, T], each kind's topics
    kinds: np.ndarray  # float64[Z], how frequent each kind is

    @functools.cached_property
    def start(self) -> np.ndarray:
        """float64[Z, I]: the stationary law of each kind's chain.

        Following the circle and staying keep the topic, so its law is the kind's taste. In a topic an item is the
        last one's successor or drawn by its share, whatever the kind.
        """
        follow, law = self.config.follow, self.share
        while True:
            following = (1 - follow) * self.share
            following[self.successor] += follow * law
            if np.abs(following - law).sum() < _STATIONARY * len(self.taste[0]):
                return self.taste[:, self.topic] * following
            law = following

    def next_item(self, histories: np.ndarray) -> np.ndarray:
        """float64[N, I]: the law of the item after each history int[N, L] (in time order, -1 behind its last item).

        Rows sum to 1. An empty history gives the law of a single item.
        """
        histories = np.asarray(histories, np.int64)
        lengths = (histories >= 0).sum(1)
        kind = self.kind_after(histories)
        rows = np.arange(len(histories))
        last = np.where(lengths > 0, histories[rows, np.maximum(lengths - 1, 0)], 0)
        here = self.topic == self.topic[last][:, None]
        stay, follow = self.config.stay, self.config.follow
        out = (1 - follow) * self.share * (stay * here + (1 - stay) * (kind @ self.taste)[:, self.topic])
        out[rows, self.successor[last]] += follow
        return np.where((lengths > 0)[:, None], out, kind @ self.start)

    def kind_after(self, histories: np.ndarray) -> np.ndarray:
        """float64[N, Z]: what a history tells of the user's kind, by Bayes' rule."""
        likelihood = np.log(self.kinds) + np.zeros((len(histories), 1))
        for step, item in enumerate(histories.T):
            known = np.where(item >= 0, item, 0)
            factor = self.start[:, known].T if step == 0 else self._transition(histories[:, step - 1], known)
            likelihood += np.where((item >= 0)[:, None], np.log(np.maximum(factor, 1e-300)), 0)
        weight = np.exp(likelihood - likelihood.max(1, keepdims=True))
        return weight / weight.sum(1, keepdims=True)

    def _transition(self, last: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float64[N, Z]: the probability of `item` after `last` for each kind."""
        stay, follow = self.config.stay, self.config.follow
        topic = self.topic[item]
        drawn = stay * (self.topic[last] == topic)[:, None] + (1 - stay) * self.taste[:, topic].T
        return follow * (self.successor[last] == item)[:, None] + (1 - follow) * self.share[item][:, None] * drawn


def make_world(config: SyntheticConfig) -> World:
    """The world of these settings; the seed fixes it."""
    rng = np.random.default_rng([config.seed, 0])
    items, topics, kinds = config.num_items, config.num_topics, config.num_kinds
    topic = rng.permutation(np.arange(items) % topics)
    place, successor = np.empty(items, np.int64), np.empty(items, np.int64)
    for t in range(topics):
        circle = rng.permutation(np.flatnonzero(topic == t))
        successor[circle] = np.roll(circle, -1)
        place[rng.permutation(circle)] = np.arange(len(circle))
    weight = (place + 1.0) ** -config.skew
    share = weight / np.bincount(topic, weight)[topic]
    taste = rng.dirichlet(np.full(topics, 0.2), kinds) + 0.01  # no topic is impossible for a kind
    frequency = rng.dirichlet(np.full(kinds, 10.0))
    return World(config, topic, successor, share, taste / taste.sum(1, keepdims=True), frequency)


def draw(config: SyntheticConfig) -> RawData:
    """The users of `make_world(config)`, with `config.shortest` to `config.longest` interactions each."""
    world = make_world(config)
    rng = np.random.default_rng([config.seed, 1])
    lengths = rng.integers(config.shortest, config.longest + 1, config.num_users)
    items = _walks(world, rng, config.num_users, config.longest)
    start = rng.integers(0, 365 * 86_400, config.num_users)
    time = start[:, None] + rng.integers(60, 86_400, items.shape).cumsum(1)
    user, step = np.nonzero(np.arange(config.longest) < lengths[:, None])
    interactions = pl.DataFrame(
        {
            "user": pl.Series(user).cast(pl.String),
            "item": pl.Series(items[user, step]).cast(pl.String),
            "time": time[user, step],
        }
    )
    titles = _titles(world)
    described = pl.DataFrame({"item": [str(item) for item in range(config.num_items)], "title": titles, "text": titles})
    described = described.with_row_index("line", offset=1)
    digest = hashlib.sha256(repr(config).encode()).hexdigest()
    return RawData([interactions], [described], {"synthetic": digest}, Rejects())


def expected_recall(law: np.ndarray, lists: np.ndarray, k: int) -> float:
    """Recall@k that lists int[N, at least k] of items have on average over targets drawn from `law` float64[N, I].

    It is what a test set of endless size would say: free of the luck of a target. Items are distinct, -1 is none.
    """
    listed = np.asarray(lists)[:, :k]
    return float(np.where(listed >= 0, np.take_along_axis(law, np.maximum(listed, 0), axis=1), 0).sum(1).mean())


def best_recall(law: np.ndarray, k: int) -> float:
    """The largest `expected_recall` at k of any lists: the probability of the k likeliest items."""
    return float(-np.sort(-law, axis=1)[:, :k].sum(1).mean())


def best_wpauc(law: np.ndarray, alpha: float, d: float) -> float:
    """The largest WPAUC(alpha, d) that any ranking has on average over targets drawn from `law` float64[N, I].

    With one target among I items the I - 1 negatives in descending order have positions p = 0, 1, ...; the target is
    above the p-th where it is among the first p + 1 of all. So WPAUC is the mean of Recall@(p + 1) over the window
    alpha (I - 1) <= p < (alpha + d)(I - 1), a position that the window covers in part counting in part.
    """
    negatives = law.shape[1] - 1
    recall = np.cumsum(-np.sort(-law, axis=1), axis=1).mean(0)
    position = np.arange(negatives)
    overlap = np.minimum(position + 1, (alpha + d) * negatives) - np.maximum(position, alpha * negatives)
    return float((np.maximum(overlap, 0) * recall[:-1]).sum() / (d * negatives))


def _walks(world: World, rng: np.random.Generator, users: int, length: int) -> np.ndarray:
    """int64[users, length]: every user's items in order."""
    topics, config = world.taste.shape[1], world.config
    kind = rng.choice(len(world.kinds), users, p=world.kinds)
    of_topic = [np.flatnonzero(world.topic == t) for t in range(topics)]

    def drawn(topic: np.ndarray) -> np.ndarray:
        out = np.empty(users, np.int64)
        for t, members in enumerate(of_topic):
            here = np.flatnonzero(topic == t)
            out[here] = rng.choice(members, len(here), p=world.share[members])
        return out

    items = np.empty((users, length), np.int64)
    for z, law in enumerate(world.start):
        here = np.flatnonzero(kind == z)
        items[here, 0] = rng.choice(config.num_items, len(here), p=law / law.sum())
    for step in range(1, length):
        last = items[:, step - 1]
        liked = (rng.random(users)[:, None] > world.taste[kind].cumsum(1)[:, :-1]).sum(1)
        topic = np.where(rng.random(users) < config.stay, world.topic[last], liked)
        items[:, step] = np.where(rng.random(users) < config.follow, world.successor[last], drawn(topic))
    return items


def _titles(world: World) -> list[str]:
    """A title for each item, all different: a colour, a noun for the topic, the numbers of the topic and in it."""
    titles = [""] * world.config.num_items
    for t in range(world.config.num_topics):
        for place, item in enumerate(np.flatnonzero(world.topic == t)):
            colour, noun = _COLOURS[place % len(_COLOURS)], _NOUNS[t % len(_NOUNS)]
            titles[item] = f"{colour} {noun} {t + 1}-{place + 1}"
    return titles
