"""The command line: `wpauc report RUN...`, for runs that were evaluated.

One run: its report.html is made anew. Several runs: one page holds all of them, and what they have in common.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from wpauc_jax.report.facts import ReportError
from wpauc_jax.report.write import PAGE, write_report, write_reports


def main(arguments: Sequence[str]) -> int:
    """Writes the page for `arguments` (sys.argv) and says where it is.

    Returns 0, or 2 where a run cannot be read or the page cannot be written.
    """
    args = _parser().parse_args(arguments[1:])
    output = pathlib.Path(args.output or (args.runs[0] / PAGE if len(args.runs) == 1 else PAGE))
    try:
        if len(args.runs) == 1:
            write_report(args.runs[0], output)
        else:
            write_reports(args.runs, output)
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


def _parser() -> argparse.ArgumentParser:
    description, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="wpauc report", description=description)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="work directories")
    parser.add_argument("--output", help=f"the page; without it RUN/{PAGE}, of several runs ./{PAGE}")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
