"""A world whose law is known: items with topics and titles, users of several kinds, and the best possible ranking.

A user is of one kind and keeps it. After item i its next item is drawn like this. With probability `follow` it is the
successor of i: the items of a topic stand in one circle. Otherwise it is an item of some topic: with probability `stay`
the topic of i, else a topic drawn from the taste of the kind. Among a topic's items the k-th most popular is drawn in
proportion to (k + 1) ** -skew.

The first item is drawn from the stationary law of this chain. So the last items of a history have the law of a whole
history. Then

    p(next | history) = sum over kinds of p(kind | history) p(next | last item, kind)

is exact for a history of any length, although its start is not known. No ranking is better than sorting by it, in
Recall@K, NDCG@K or WPAUC, for any K or window, if a list has one target.
"""

import dataclasses
import functools

import numpy as np

from wpauc_jax.config import SyntheticConfig

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
