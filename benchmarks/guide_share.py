"""How much should a guide count? Validation's metrics of a trained run under several shares of its guide.

    python -m benchmarks.guide_share RUN GUIDE --shares=0,0.25,0.5,0.75,1

RUN and GUIDE are work directories of one data set, that of GUIDE with one token an item. Nothing is trained or written.
The rows are those of the run's validation, `eval.valid_users` of them. Choose `eval.guide_share` here, and then rank
the test rows: `wpauc evaluate --workdir=RUN --config.eval.guide=GUIDE --config.eval.guide_share=SHARE`. A share of 0 is
the run alone, and 1 its guide alone. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import pathlib

import jax

from wpauc_jax.config.recorded import remembered_config
from wpauc_jax.evaluation.evaluate import evaluate, evaluate_exact
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.stages.recommender import answering
from wpauc_jax.stages.run import tell
from wpauc_jax.stages.workspace import open_workspace


def metrics_of(folder: pathlib.Path, guide: str, share: float) -> dict[str, float]:
    """Validation's metrics of the last trained stage, with the guide's share in every score."""
    config = remembered_config(folder)
    ranking = dataclasses.replace(config.eval, guide=guide, guide_share=share)
    config = dataclasses.replace(config, mode="evaluate", eval=ranking)
    with jax.set_mesh(make_mesh(config.mesh)):
        work = open_workspace(config, folder, lambda _: None)
        params, batches = answering(work, lambda _: None).params, work.eval_batches(work.valid_positions)
        if work.one_token:
            ranks = evaluate_exact(work.exact_search(), params, batches).ranks
        else:
            ranks = evaluate(work.search(ranking.num_beams), params, batches)
    return ranks.metrics(ranking.recall_at, ranking.ndcg_at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("guide")
    parser.add_argument("--shares", default="0,0.25,0.5,0.75,1")
    options = parser.parse_args()
    found = {}
    for share in map(float, options.shares.split(",")):
        found[f"{share:g}"] = metrics_of(options.run, options.guide, share)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in found[f"{share:g}"].items())
        tell(f"share {share:4.2f}  {shown}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
