"""SASRec of RecBole as a process beside ours: an epoch for each line of its input. Needs RecBole 1.2, and no JAX.

`benchmarks.baselines` starts it. For each line it writes one JSON object: the epoch's seconds and its targets. Ids and
clock come from a RecBole .inter file. Every prefix of a user's training items is a sample, as RecBole does it.
"""

import contextlib
import gzip
import json
import pathlib
import shutil
import sys
import tempfile
import time

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed


def main() -> None:
    source, shape = pathlib.Path(sys.argv[1]).resolve(), json.loads(sys.argv[2])
    with tempfile.TemporaryDirectory() as root, contextlib.chdir(root):  # RecBole writes logs where it is started
        folder = pathlib.Path(root, "peer")
        folder.mkdir()
        with gzip.open(source, "rb") as packed, (folder / "peer.inter").open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        columns = (folder / "peer.inter").read_text(encoding="utf-8").partition("\n")[0].split("\t")
        user, item, clock = (column.partition(":")[0] for column in columns[:3])
        settings = {
            "data_path": root,
            "checkpoint_dir": root,
            "USER_ID_FIELD": user,
            "ITEM_ID_FIELD": item,
            "TIME_FIELD": clock,
            "load_col": {"inter": [user, item, clock]},
            "MAX_ITEM_LIST_LENGTH": shape["history"],
            "n_layers": shape["layers"],
            "n_heads": shape["heads"],
            "hidden_size": shape["width"],
            "inner_size": shape["ffn"],
            "hidden_dropout_prob": shape["dropout"],
            "attn_dropout_prob": 0.0,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "train_batch_size": shape["batch"],
            "learning_rate": 1e-3,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "seed": 0,
        }
        config = Config(model="SASRec", dataset="peer", config_dict=settings)
        init_seed(0, reproducibility=True)
        train, _, _ = data_preparation(config, create_dataset(config))
        model = get_model("SASRec")(config, train.dataset)
        trainer = Trainer(config, model)
        for number, _ in enumerate(sys.stdin):
            began = time.perf_counter()
            trainer._train_epoch(train, number)
            print(json.dumps({"epoch_s": time.perf_counter() - began, "targets": len(train.dataset)}), flush=True)


if __name__ == "__main__":
    main()
