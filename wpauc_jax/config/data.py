"""Settings of the data, of the catalogue that is made of them, and of the prompt."""

import dataclasses
import datetime
import pathlib

from wpauc_jax.config.fields import Checked, ConfigError, at_least, choice


@dataclasses.dataclass(frozen=True)
class SyntheticConfig(Checked, section="data.synthetic."):
    """data.source=synthetic: a world whose law is known; `data/sources/synthetic.py` states it."""

    num_users: int = at_least(2000, 1)
    num_items: int = at_least(200, 2)
    num_topics: int = at_least(10, 1)
    num_kinds: int = at_least(6, 1)  # of users
    follow: float = at_least(0.2, 0.0)  # how often the next item is the last one's successor
    stay: float = at_least(0.1, 0.0)  # how often a drawn item is of the last one's topic
    skew: float = at_least(1.0, 0.0)  # of an item's popularity in its topic: the exponent of Zipf's law
    shortest: int = at_least(5, 1)  # interactions of a user
    longest: int = at_least(20, 1)
    seed: int = at_least(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_topics > self.num_items:
            raise ConfigError(
                f"data.synthetic.num_topics={self.num_topics} is more than data.synthetic.num_items={self.num_items}"
            )
        if self.longest < self.shortest:
            raise ConfigError(f"data.synthetic.longest={self.longest} is below data.synthetic.shortest={self.shortest}")
        for name in ("follow", "stay"):
            if getattr(self, name) >= 1:
                raise ConfigError(
                    f"data.synthetic.{name}={getattr(self, name)} must be below 1: a user's kind must show"
                )


_KEEP_ALL = {  # the settings of DataConfig that drop rows, and the values with which they do not
    **{"k_core": 0, "repeats": "keep", "start": "", "end": ""},
    **{"require_title": False, "drop_markup": False, "title_words": 0},
}


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked, section="data."):
    """Where interactions come from and how they become training rows."""

    source: str = choice(
        "auto", "amazon", "minionerec", "movielens", "recbole", "sequences", "tabular", "yelp", "synthetic"
    )  # auto: by the names and the first line of the files
    root: str = ""  # a folder that holds several data sets; a relative path starts there
    path: str = ""  # a file or folder
    archive: str = ""  # where path is empty: a public data set to fetch, a name in data/archives.py
    cache: str = ""  # downloads; "" is $XDG_CACHE_HOME/wpauc_jax or ~/.cache/wpauc_jax
    dir: str = ""  # the prepared directory; "" is <workdir>/data
    user_column: str = "user_id"  # tabular: the names of columns; time_column "": the order of rows is that of time
    item_column: str = "item_id"
    time_column: str = "timestamp"
    title_column: str = "title"
    items_path: str = ""  # amazon, tabular: the file that describes items, from the folder of the interactions on
    time_unit: str = choice("s", "ms")  # tabular: what numbers in time_column count since 1970
    bad_rows: str = choice("error", "skip")  # a row that cannot be read: an error, or left out and counted
    start: str = ""  # keep interactions from this date on (UTC, as in 2016-10-01)
    end: str = ""  # and before this one
    require_title: bool = False  # drop items without a title
    drop_markup: bool = False  # drop items whose title holds HTML
    title_words: int = at_least(0, 0)  # drop items with more words in the title; 0: keep all
    k_core: int = at_least(5, 0)  # drop users and items with fewer interactions, to the fixed point; 0: keep all
    repeats: str = choice("keep", "first")  # an item that a user meets again: keep it, or only the first time
    split: str = choice(
        "leave_one_out", "chronological", "published"
    )  # 8:1:1 by time over all samples; as the files say
    max_history: int = at_least(10, 1)  # items of history in a prompt
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
                raise ConfigError(f"data.{name}={getattr(self, name)!r} is not a date such as 2016-10-01")

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

    ids: str = choice("kmeans", "file", "title")
    tokenizer: str = ""  # a folder or hub id; "" is model.pretrained's; without either, ids are all the vocabulary
    max_title_tokens: int = at_least(32, 8)  # a longer title is cut
    path: str = ""  # ids=file: a RecBole .sid file
    embedding: str = "text+cooccurrence"  # text | cooccurrence | text+cooccurrence | a .npy file [items, width]
    embedding_width: int = at_least(64, 1)
    levels: int = at_least(3, 1)
    codes: int = at_least(64, 2)  # codes per level
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class PromptConfig(Checked, section="prompt."):
    """What stands around the items in a language model's prompt. Without a tokenizer there is no text."""

    style: str = choice("list", "chat")  # chat: in the tokenizer's chat template; then SFT has a row a target
    instruction: str = "Items that one user chose, the latest last:"
    history: str = choice("items", "titles")  # titles: semantic ids are asked for behind a history of titles
    max_tokens: int = at_least(0, 0)  # of a prompt; the oldest items beyond it are dropped whole; 0: no limit
    widths: tuple[int, ...] = ()  # a batch is padded to the least of these that holds its prompts, or to the longest

    def __post_init__(self) -> None:
        super().__post_init__()
        if min((1, *self.widths)) < 1 or list(self.widths) != sorted(set(self.widths)):
            raise ConfigError(f"prompt.widths={self.widths!r} must be numbers of tokens in ascending order")
