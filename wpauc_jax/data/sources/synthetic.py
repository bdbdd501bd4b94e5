"""data.source=synthetic: users drawn from a world whose law is known; `data/world.py` states the law."""

import hashlib

import numpy as np
import polars as pl

from wpauc_jax.config import SyntheticConfig
from wpauc_jax.data.errors import Rejects
from wpauc_jax.data.tables import FilesRead, RawData
from wpauc_jax.data.world import World, make_world

_NOUNS = ("lamp", "kettle", "rope", "drum", "chair", "boot", "tent", "brush", "clock", "saw", "vase", "cable")
_COLOURS = ("red", "blue", "green", "white", "black", "grey", "brown", "golden", "violet", "orange")


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
    described = described.with_columns(pl.col("line").cast(pl.Int64), file=pl.lit("synthetic"))
    files = FilesRead()
    files["synthetic"] = digest
    return RawData([interactions], [described], files, Rejects())


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
