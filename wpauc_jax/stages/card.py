"""The model card of an export, README.md of the folder: what it is, of what it was made, how good it is."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard

from wpauc_jax.config import Config
from wpauc_jax.config.recorded import unlike_defaults
from wpauc_jax.runtime.files import read_json
from wpauc_jax.runtime.versions import made_with
from wpauc_jax.stages.recommender import Answering
from wpauc_jax.stages.run import Run

_OF_ONE_MACHINE = ("mode", "export.", "data.root", "data.dir", "data.cache", "sft_from", "mesh.", "tracking")


def model_card(run: Run, answering: Answering, base: pathlib.Path | None, settings: Mapping[str, Any]) -> str:
    """Markdown with a YAML head, as the Hugging Face hub shows it.

    `base` is the folder of the pretrained model, if there is one. Its licence is the one that it states. `settings` are
    the configuration as JSON values. Metrics are those of results.json, if they are of these very parameters.
    """
    blocks = [
        _head(run.config, base),
        f"# A recommender of {run.catalog.num_items:,} items",
        _what_it_is(run, answering),
        _USE,
        "## Data",
        _data(run),
        "## Results",
        _results(run.folder, answering),
        "## Settings that differ from the defaults",
        _settings(settings),
        "## Made with",
        "\n".join(f"- {name} {version}" for name, version in made_with()["versions"].items()),
    ]
    return "\n\n".join(blocks) + "\n"


def license_of(base: pathlib.Path) -> dict[str, Any]:
    """What a pretrained model says of its licence: the fields `license`, `license_name`, `license_link` of its card.

    A card without them leaves it to "license" in config.json. "unknown" where neither says anything.
    """
    try:
        stated = ModelCard((base / "README.md").read_text(encoding="utf-8")).data.to_dict()
    except Exception:  # no card, or a head that is no YAML, whose error is of a package that is not ours
        stated = {}
    if not stated.get("license"):
        stated = {"license": read_json(base / "config.json").get("license") or "unknown"}
    return {name: value for name, value in stated.items() if name.startswith("license")}


def _head(config: Config, base: pathlib.Path | None) -> str:
    lines = ["library_name: wpauc_jax", "tags: [recommendation, sequential-recommendation]"]
    if base is not None:
        lines += [f"{name}: {json.dumps(value)}" for name, value in license_of(base).items()]  # JSON is YAML
        lines += [] if pathlib.Path(config.model.pretrained).exists() else [f"base_model: {config.model.pretrained}"]
    return "\n".join(["---", *lines, "---"])


def _what_it_is(run: Run, answering: Answering) -> str:
    model, tokens = run.policy.config, int(run.catalog.lengths.max())
    item = "one token" if tokens == 1 else f"up to {tokens} tokens"
    rule = "left out of the answers" if run.builder.exclude_history else "ranked like all others"
    layers = "1 layer" if model.num_layers == 1 else f"{model.num_layers} layers"
    sentences = [
        f"From up to {run.builder.max_history} items that a user had, it ranks what comes next.",
        f"It is a `{model.family}` model with {layers} of width {model.width}. An item is {item}.",
        f"Items of the history are {rule}.",
        f"These are the best parameters of {answering.stage}, step {answering.step}.",
    ]
    if run.config.model.pretrained:
        sentences.append(f"It began as `{_without_folder(run.config.model.pretrained)}`.")
    return "\n".join(sentences)


def _without_folder(value: Any) -> Any:
    """A value of a setting; of what is a path on this machine the last part, and a name on the hub as it is."""
    is_path = isinstance(value, str) and bool(value) and pathlib.Path(value).exists()
    return pathlib.Path(value).name if is_path else value


_USE = """## Use

```python
import wpauc_jax

recommender = wpauc_jax.Recommender.load("THIS_FOLDER")
recommender.recommend([["RAW_ID", "ANOTHER_ID"]], k=10)  # raw ids of items.jsonl
```

`wpauc serve THIS_FOLDER` serves it with a page. `items.jsonl` has every item's raw id, title and tokens, and `trie.npz`
which tokens may follow which. docs/models.md of wpauc_jax says how to answer with `transformers` alone."""


def _data(run: Run) -> str:
    folder = pathlib.Path(run.config.data.dir or run.folder / "data")
    manifest = read_json(folder / "manifest.json")
    found, settings = manifest["statistics"], manifest["settings"]
    samples = ", ".join(f"{name} {count:,}" for name, count in found["samples"].items())
    files = [f"- `{name}`, sha256 {digest}" for name, digest in manifest["input"].items()]
    counts = f"{found['users']:,} users, {found['items']:,} items, {found['interactions']:,} interactions"
    return "\n".join(
        [
            f"{counts}. Split `{settings['split']}`: {samples} samples.",
            "",
            *files,
            f"- prepared: {run.items.fingerprint}",
        ]
    )


def _results(folder: pathlib.Path, answering: Answering) -> str:
    path = folder / "results.json"
    results = read_json(path) if path.is_file() else {}
    if "rule" not in results or results.get("best_steps", {}).get(answering.stage) != answering.step:
        return "These parameters were not evaluated. `wpauc evaluate` does it; export again after that."
    names = list(results["stages"][answering.stage]["metrics"])
    rows = [["stage", *names], ["---"] * (len(names) + 1)]
    for stage, facts in results["stages"].items():
        errors = facts["standard_errors"]
        rows.append([stage, *(f"{facts['metrics'][name]:.4f} ± {errors[name]:.4f}" for name in names)])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        f"On the {results['split']} split, {results['samples']:,} samples of {results['users']:,} users; "
        f"{results['rule']}. Behind ± is the standard error over users.\n\n{table}\n\n"
        "popularity, last_item and markov need no training."
    )


def _settings(settings: Mapping[str, Any]) -> str:
    kept = {name: pair for name, pair in unlike_defaults(settings).items() if not name.startswith(_OF_ONE_MACHINE)}
    lines = [
        f"- `{name}={json.dumps(_without_folder(value))}` (default `{json.dumps(usual)}`)"
        for name, (value, usual) in kept.items()
    ]
    return "\n".join(lines) or "None."
