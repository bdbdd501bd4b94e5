"""Settings of the data, of the catalog that is made of them, and of the prompt."""

import dataclasses
import datetime
import pathlib

from wpauc_jax.config.fields import Checked, ConfigError, a_path, a_seed, ascending, at_least, choice, share, shown

_LARGEST_WORLD = 1_000_000_000  # interactions of users, or probabilities of items, that a machine can hold


@dataclasses.dataclass(frozen=True)
class SyntheticConfig(Checked, section="data.synthetic."):
    """For `data.source=synthetic`: a world whose law is known. `data/sources/synthetic.py` states the law."""

    num_users: int = at_least(2000, 1, 100_000_000)  # how many users are drawn
    num_items: int = at_least(200, 2, 10_000_000)  # how many items the world has
    num_topics: int = at_least(10, 1, 100_000)  # how many topics the items are divided into
    num_kinds: int = at_least(6, 1, 10_000)  # how many kinds of users there are
    follow: float = share(0.2, whole=False)  # how often the next item is the successor of the last one
    stay: float = share(0.1, whole=False)  # how often a drawn item has the topic of the last one
    skew: float = at_least(1.0, 0.0, 100)  # the exponent of Zipf's law, by which popularity falls within a topic
    shortest: int = at_least(5, 1, 1_000_000)  # the fewest interactions of a user
    longest: int = at_least(20, 1, 1_000_000)  # the most interactions of a user
    seed: int = a_seed()  # the world and its users are a function of this seed

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_topics > self.num_items:
            raise ConfigError(
                f"data.synthetic.num_topics={self.num_topics} is more than data.synthetic.num_items={self.num_items}"
            )
        if self.longest < self.shortest:
            raise ConfigError(f"data.synthetic.longest={self.longest} is below data.synthetic.shortest={self.shortest}")
        for one, other in (("num_users", "longest"), ("num_kinds", "num_items")):
            size = getattr(self, one) * getattr(self, other)
            if size > _LARGEST_WORLD:
                raise ConfigError(
                    f"data.synthetic.{one}={getattr(self, one)} x data.synthetic.{other}={getattr(self, other)} is "
                    f"{size:,}, more than {_LARGEST_WORLD:,}; lower one of them"
                )


_KEEP_ALL = {  # the settings of DataConfig that drop rows, and the values with which they do not
    **{"k_core": 0, "repeats": "keep", "start": "", "end": ""},
    **{"require_title": False, "drop_markup": False, "title_words": 0},
}


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked, section="data."):
    """Where interactions come from and how they become training rows."""

    # The format of the files. auto looks at their names and first lines.
    source: str = choice(
        "auto", "amazon", "minionerec", "movielens", "recbole", "sequences", "tabular", "yelp", "synthetic"
    )
    root: str = a_path()  # a folder that holds several data sets; a relative data.path starts there
    path: str = a_path()  # the file or folder of interactions
    archive: str = ""  # where data.path is empty: a public data set, fetched or found in data.root (data/archives.py)
    cache: str = a_path()  # where downloads are kept; empty: $XDG_CACHE_HOME/wpauc_jax or ~/.cache/wpauc_jax
    dir: str = a_path()  # where the prepared data are kept; empty: WORKDIR/data
    # tabular, recbole: the name of the column of users, or its number in a file without a header
    user_column: str = "user_id"
    item_column: str = "item_id"  # likewise the column of items
    time_column: str = "timestamp"  # likewise the column of times; empty: rows are in the order of time
    title_column: str = "title"  # likewise the column of titles
    # amazon, tabular: the file that describes items. A relative path starts in the folder of the interactions.
    items_path: str = a_path()
    time_unit: str = choice("auto", "s", "ms", "us", "ns")  # what numbers count; auto: the format's unit, or s
    bad_rows: str = choice("error", "skip")  # a row that cannot be read is an error, or is left out and counted
    changed: str = choice("error", "use")  # files that changed since they were prepared: an error, or a printed line
    start: str = ""  # keep interactions from this date on (UTC, as in 2016-10-01); empty: from the first
    end: str = ""  # keep interactions before this date; empty: up to the last
    require_title: bool = False  # drop items without a title
    drop_markup: bool = False  # drop items whose title holds HTML
    title_words: int = at_least(0, 0, 1_000_000)  # drop items with more words in the title; 0: keep all
    # Drop users and items with fewer interactions, again and again until none is left. 0: keep all.
    k_core: int = at_least(5, 0)
    repeats: str = choice("keep", "first")  # an item that a user meets again counts each time, or only the first time
    # leave_one_out: each user's last two items are for test and validation. chronological: 8:1:1 by time over all
    # samples. published: as the files say.
    split: str = choice("leave_one_out", "chronological", "published")
    max_history: int = at_least(10, 1, 10_000)  # the most items of history in a prompt
    synthetic: SyntheticConfig = SyntheticConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, value in (("split", "published"), ("source", "synthetic")):
            dropping = [name for name, keep in _KEEP_ALL.items() if getattr(self, name) != keep]
            if getattr(self, field) == value and dropping:
                mend = " and ".join(
                    f"data.{name}={_KEEP_ALL[name]!r} (it is {getattr(self, name)!r})" for name in dropping
                )
                raise ConfigError(f"data.{field}={value!r} keeps every row: set {mend}")
        for name in ("start", "end"):
            if not _is_date(getattr(self, name)):
                raise ConfigError(f"data.{name}={shown(getattr(self, name))} is not a date such as 2016-10-01")
        if self.start and self.end and self.start >= self.end:
            raise ConfigError(f"data.start={self.start!r} is not before data.end={self.end!r}: no interaction is left")

    @property
    def location(self) -> str:
        """`path`, from `root` on where one is set."""
        return str(pathlib.Path(self.root, self.path)) if self.root and self.path else self.path


def _is_date(text: str) -> bool:
    try:
        return not text or (len(text) == len("2016-10-01") and bool(datetime.date.fromisoformat(text)))
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class CatalogConfig(Checked, section="catalog."):
    """How an item becomes a token sequence."""

    # kmeans: semantic ids by clustering the items' embeddings. balanced: the same, but all codes of a level stand for
    # about equally many items. rqvae: an autoencoder with quantised codes, as in TIGER. file: semantic ids of a file.
    # title: an item is its title. atomic: an item is one token of its own.
    ids: str = choice("kmeans", "balanced", "rqvae", "file", "title", "atomic")
    # A folder or hub id of a tokenizer. Empty: that of model.pretrained; without either, ids are all the vocabulary.
    tokenizer: str = a_path()
    max_title_tokens: int = at_least(32, 8, 4096)  # a longer title is cut
    path: str = a_path()  # ids=file: a RecBole .sid file
    # What items are clustered by: text, cooccurrence, text+cooccurrence, or a file: .npy with [items, width], or .npz
    # with item_ids and embeddings, as mode=export writes it where an item is one token.
    embedding: str = a_path("text+cooccurrence")
    embedding_width: int = at_least(64, 1, 4096)  # numbers in an item's embedding
    levels: int = at_least(3, 1, 16)  # codes in a semantic id
    codes: int = at_least(64, 2, 65_536)  # different codes in each level
    seed: int = a_seed()  # of the clustering, or of the autoencoder


@dataclasses.dataclass(frozen=True)
class PromptConfig(Checked, section="prompt."):
    """What stands around the items in a language model's prompt. Without a tokenizer there is no text."""

    # list: the instruction, then the items. chat: the same in the tokenizer's chat template; SFT then has a row for
    # each target.
    style: str = choice("list", "chat")
    instruction: str = "Items that one user chose, the latest last:"  # the text before the items
    # How the history is written. titles: semantic ids are asked for, but the history is told by titles.
    history: str = choice("items", "titles")
    max_tokens: int = at_least(0, 0, 1_000_000)  # of a prompt; the oldest items beyond it are dropped; 0: no limit
    # A batch is padded to the least of these widths that holds its prompts. Empty: to its longest prompt.
    widths: tuple[int, ...] = ascending((), 1, 1_000_000, empty=True)
