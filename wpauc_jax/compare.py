"""Is B better than A? Compares two evaluations on the same samples, by a paired bootstrap over users.

    python -m wpauc_jax.compare A.npz B.npz
    python -m wpauc_jax.compare A1.npz,A2.npz,A3.npz B1.npz,B2.npz,B3.npz

Several files with commas between them are runs of one method with several seeds. A sample then counts with its mean
over these runs.
"""

import argparse
import sys
from collections.abc import Sequence

from wpauc_jax.evaluation.bootstrap import paired_bootstrap
from wpauc_jax.evaluation.ranks import Ranks, RanksError, metric_names
from wpauc_jax.evaluation.report import comparison_table


def main(arguments: Sequence[str]) -> int:
    """Prints the table for `arguments` (sys.argv); returns 0, or 2 where the files cannot be read or compared."""
    args = _parser().parse_args(arguments[1:])
    try:
        print(compare(args.a, args.b, metric_names(args.recall_at, args.ndcg_at), args.samples, args.seed))
    except RanksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(a: Sequence[str], b: Sequence[str], metrics: Sequence[str], samples: int = 10_000, seed: int = 0) -> str:
    """The text for two lists of rank files. Raises RanksError naming what cannot be read or compared."""
    runs_a, runs_b = ([Ranks.load(path) for path in paths] for paths in (a, b))
    differences = [paired_bootstrap(runs_a, runs_b, name, samples=samples, seed=seed) for name in metrics]
    first = runs_a[0]
    return "\n".join(
        [
            f"A: {', '.join(a)}",
            f"B: {', '.join(b)}",
            f"{len(first):,} samples of {first.num_users:,} users, {samples:,} bootstrap draws of users, seed {seed}",
            comparison_table(differences),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    description, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m wpauc_jax.compare", description=description)
    parser.add_argument("a", type=_paths, metavar="A", help="rank files (.npz) of the baseline, separated by commas")
    parser.add_argument("b", type=_paths, metavar="B", help="rank files of the contender")
    parser.add_argument("--recall_at", type=_cutoffs, default=[1, 3, 5, 10], metavar="K,K,...")
    parser.add_argument("--ndcg_at", type=_cutoffs, default=[3, 5, 10], metavar="K,K,...")
    parser.add_argument("--samples", type=_positive, default=10_000, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _paths(text: str) -> list[str]:
    return [path for path in text.split(",") if path]


def _cutoffs(text: str) -> list[int]:
    return [_positive(k) for k in text.split(",") if k]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv))
