"""An epoch of SASRec: ours against RecBole's, on the same file, in turns.

    python -m benchmarks.baselines --data=DATA --recbole-python=PYTHON
    python -m benchmarks.baselines --data=DATA --recbole-python=PYTHON --set=toys --turns=2

DATA is the folder that configs/benchmarks.py describes, PYTHON an interpreter with RecBole 1.2.1 (and "numpy<2",
"setuptools<80"). Both have the same shape, dropout and learning rate, and score the whole catalog for each target.
RecBole's sample is a prefix of a user's items, and a step has --batch of them. Ours learns from all items of a sequence
in one pass. A step has --rows rows, which are as many targets if a row holds 6.8, as on office.

Ours are two runs of the real command, which differ by --epochs epochs: their difference is free of imports, compiling
and validation. The last line is one JSON object.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.measure import median
from benchmarks.peer import PeerProcess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recbole-python", required=True)
    parser.add_argument("--set", choices=("office", "toys", "yelp"), default="office")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--history", type=int, default=10)
    parser.add_argument("--batch", type=int, default=2048, help="targets a step of RecBole's")
    parser.add_argument("--rows", type=int, default=304, help="rows a step of ours")
    parser.add_argument("--epochs", type=int, default=20, help="of ours, in a turn; RecBole's turn is one epoch")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()

    file = pathlib.Path(options.data, options.set, f"{options.set}.inter.gz")
    shape = {
        name: getattr(options, name) for name in ("layers", "heads", "width", "ffn", "dropout", "history", "batch")
    }
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        command = [options.recbole_python, "-W", "ignore", "-m", "benchmarks.recbole_peer"]
        peer = PeerProcess([*command, str(file), json.dumps(shape)])
        stack.callback(peer.close)
        for turn in range(-1, options.turns):  # the first warms both up
            short, long = (_seconds(options, epochs, root) for epochs in (1, 1 + options.epochs))
            found = peer.step()
            if turn >= 0:
                ours.append((long - short) / options.epochs)
                theirs.append(found["epoch_s"])
                print(f"ours {ours[-1]:.2f} s an epoch, RecBole {theirs[-1]:.2f} s: {theirs[-1] / ours[-1]:.1f}")
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    result = {"set": options.set, "epoch_s": median(ours), "recbole_epoch_s": median(theirs), "ratio": median(ratios)}
    print(json.dumps(result | {"ratio_spread": [min(ratios), max(ratios)], "targets": found["targets"], **shape}))


def _seconds(options: argparse.Namespace, epochs: int, root: str) -> float:
    """Wall seconds of a run of so many epochs, with one validation."""
    folder = tempfile.mkdtemp(dir=root)
    settings = {
        "mode": "sft",
        "data.root": options.data,
        "data.dir": str(pathlib.Path(root, "data")),
        "data.max_history": options.history,
        "model.num_layers": options.layers,
        "model.num_heads": options.heads,
        "model.num_kv_heads": options.heads,
        "model.head_dim": options.width // options.heads,
        "model.width": options.width,
        "model.ffn_width": options.ffn,
        "sft.dropout": options.dropout,
        "sft.optim.learning_rate": 1e-3,
        "sft.exclude_history": False,
        "sft.batch_size": options.rows,
        "sft.epochs": epochs,
        "sft.evals": 1,
        "compile_cache": str(pathlib.Path(root, "programs")),
    }
    command = [sys.executable, "-m", "wpauc_jax.main", f"--config=configs/baselines.py:sasrec-{options.set}"]
    command += [f"--workdir={folder}", *(f"--config.{name}={value}" for name, value in settings.items())]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
