"""Ranks: the place of each sample's target in the list of its user. Every metric follows from them."""

import dataclasses
import os
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from wpauc_jax.runtime.files import atomic_path

_ARRAYS = {"sample": np.int64, "user": np.int32, "target": np.int32, "rank": np.int32, "left_out": np.int32}


class RanksError(ValueError):
    """Ranks that cannot be read, measured or compared; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The place of N samples' targets, one target each.

    sample: int64[N], flat positions in the data set, each once. user, target: int32[N].
    rank: int32[N], 0-based place of the target in the list, -1 where the list lacks it.
    num_candidates: length of the lists: the beam width, or the number of items if all were ranked.
    left_out: int32[N], how many items of the user's history could not be in the list; None where every item could.
    """

    sample: np.ndarray
    user: np.ndarray
    target: np.ndarray
    rank: np.ndarray
    num_candidates: int
    left_out: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self._arrays().items()}
        if len(set(lengths.values())) != 1:
            raise RanksError(f"ranks need arrays of one length, got {lengths}")
        for name, array in self._arrays().items():
            object.__setattr__(self, name, np.asarray(array, _ARRAYS[name]))
        object.__setattr__(self, "num_candidates", int(self.num_candidates))
        if np.unique(self.sample).size != self.sample.size:
            raise RanksError("ranks hold a sample twice")
        wrong = (self.rank < -1) | (self.rank >= self.num_candidates)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise RanksError(
                f"sample {self.sample[i]} has rank {self.rank[i]}, outside a list of {self.num_candidates} (absent: -1)"
            )

    def __len__(self) -> int:
        return self.sample.size

    @property
    def num_users(self) -> int:
        """Distinct users; fewer than the samples where a user has several."""
        return np.unique(self.user).size

    @property
    def rule(self) -> str:
        """Which items could be in the lists."""
        return "every item is ranked" if self.left_out is None else "items of a user's history are left out"

    def values(self, metric: str) -> np.ndarray:
        """float64[N]: a metric such as 'recall@10', 'ndcg@3', 'auc' or 'opauc@10' of every sample.

        With one target, Recall@K is 1 where rank < K and NDCG@K is 1/log2(rank + 2) there; AUC is the share of the
        other items below the target, OPAUC@K the normalised partial AUC over false positive rates up to K of them, and
        WPAUC@K, over the window of Recall@K, equals Recall@K (docs/theory.md).
        Raises RanksError for an unknown name, and for a K beyond lists that miss some target: its rank is not known.
        """
        name, k = parse_metric(metric)
        if name == "auc":
            return self._auc()
        if k > self.num_candidates and (self.rank < 0).any():
            raise RanksError(f"{metric} needs lists of at least {k}, these hold {self.num_candidates}; widen the beam")
        hit = (self.rank >= 0) & (self.rank < k)
        if name in ("recall", "wpauc"):
            return hit.astype(np.float64)
        if name == "opauc":
            return np.where(hit, (k - self.rank) / k, 0.0)
        return np.where(hit, 1.0 / np.log2(np.maximum(self.rank, 0) + 2.0), 0.0)

    def metrics(self, recall_at: Iterable[int], ndcg_at: Iterable[int]) -> dict[str, float]:
        """Means over samples, by name: {'recall@1': ..., 'ndcg@3': ...}. Raises RanksError where there is no sample."""
        return {name: self.mean(name) for name in metric_names(recall_at, ndcg_at)}

    def mean(self, metric: str) -> float:
        """Mean of `values(metric)`."""
        self._need_samples(1, metric)
        return float(self.values(metric).mean())

    def standard_error(self, metric: str) -> float:
        """Of the mean, with a user's samples counted as one cluster; with one sample a user, the usual s / sqrt(N)."""
        values = self.values(metric)
        users, user = np.unique(self.user, return_inverse=True)
        self._need_samples(1, metric)
        if users.size < 2:
            return float("nan")
        residual = np.bincount(user, weights=values - values.mean())
        return float(np.sqrt((residual**2).sum() * users.size / (users.size - 1)) / values.size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one .npz file, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            arrays: dict[str, Any] = {"num_candidates": np.int64(self.num_candidates), **self._arrays()}
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ranks":
        """Reads what `save` wrote. Raises RanksError naming the file where it is missing or something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS if name in file or name != "left_out"}
                return cls(**arrays, num_candidates=int(file["num_candidates"]))
        except FileNotFoundError as error:
            raise RanksError(f"{path}: there is no such file of ranks") from error
        except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise RanksError(f"{path}: not a file of ranks ({error})") from error

    def _auc(self) -> np.ndarray:
        if (self.rank < 0).any() or self.num_candidates < 2:
            raise RanksError("auc needs the rank of every target among all items; evaluate with eval.exact")
        others = self.num_candidates - 1 - (0 if self.left_out is None else self.left_out)
        return 1.0 - np.minimum(self.rank, others) / np.maximum(others, 1)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: array for name in _ARRAYS if (array := getattr(self, name)) is not None}

    def _need_samples(self, count: int, metric: str) -> None:
        if len(self) < count:
            raise RanksError(f"{metric} has no mean: there is no sample to evaluate")


def parse_metric(metric: str) -> tuple[str, int]:
    """'recall@10' -> ('recall', 10), 'auc' -> ('auc', 0). Raises RanksError for any other form."""
    name, _, k = metric.partition("@")
    if metric == "auc":
        return metric, 0
    if name not in ("recall", "ndcg", "opauc", "wpauc") or not k.isdecimal() or int(k) < 1:
        raise RanksError(
            f"unknown metric {metric!r}; use auc, or recall@K, ndcg@K, opauc@K, wpauc@K with K of at least 1"
        )
    return name, int(k)


def metric_names(recall_at: Iterable[int], ndcg_at: Iterable[int]) -> list[str]:
    """Names in a table's order: recall, then ndcg."""
    return [f"recall@{k}" for k in recall_at] + [f"ndcg@{k}" for k in ndcg_at]


def area_names(ks: Iterable[int]) -> list[str]:
    """Areas under the ROC curve that exact ranks give: the whole, then the partial and the windowed one at each K."""
    return ["auc", *(f"{name}@{k}" for name in ("opauc", "wpauc") for k in ks)]
