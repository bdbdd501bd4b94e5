"""A trained run as one folder: a model that `transformers` loads, its tokenizer, and the catalog."""

import dataclasses
import functools
import json
import operator
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from wpauc_jax.catalog.items import Catalog, padded
from wpauc_jax.config import Config
from wpauc_jax.models import Params, save_pretrained
from wpauc_jax.models.pretrained import local_folder
from wpauc_jax.models.vocabulary import tables
from wpauc_jax.stages.card import model_card
from wpauc_jax.stages.exported import FORMAT
from wpauc_jax.stages.recommender import Answering
from wpauc_jax.stages.run import Run


def export(run: Run, answering: Answering, *, say: Callable[[str], None]) -> pathlib.Path:
    """Writes `export.path`; it appears whole or not at all.

    Beside the model: README.md, the model card; its tokenizer, with a token for each code of semantic ids; items.jsonl,
    one item a line with its raw id, title and tokens; trie.npz, the whole catalog as a trie (token, first_child, item:
    see `wpauc_jax.catalog.trie`); prompt.json, the tokens that stand around the items of a history, the stage whose
    parameters these are, and how it answers; catalog.npz, and shown.npz where a history is told by titles, for
    `wpauc_jax.stages.exported`. Where an item is one token, item_embeddings.npz has its row of the input table:
    semantic ids can be made of these (`catalog.embedding`).

    Raises FileExistsError where there is such a folder already.
    """
    config = run.config
    path = pathlib.Path(config.export.path or run.folder / "export")
    pretrained = config.model.pretrained
    generation = search_settings(config, run.catalog)
    embeddings = _embeddings(run, answering.params)
    source = local_folder(pretrained) if pretrained else None
    card = model_card(run, answering, source, dataclasses.asdict(config))

    def add_files(folder: pathlib.Path) -> None:
        _tokenizer(run).save_pretrained(folder)
        _write_catalog(run, answering, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if embeddings is not None:
            np.savez(folder / "item_embeddings.npz", item_ids=np.array(run.items.item_ids, str), embeddings=embeddings)

    save_pretrained(
        path,
        run.policy,
        answering.params,
        dtype=config.export.dtype,
        source=source,
        generation=generation,
        add_files=add_files,
    )
    if run.guide:
        say("warning: eval.guide is not in the export: the folder answers without it")
    if run.config.eval.search != "beams":
        say(f"warning: the export answers by beams, and not by eval.search={run.config.eval.search!r}")
    say(f"the model of {answering.stage}, its tokenizer and the catalog are in {path}")
    return path


def search_settings(config: Config, catalog: Catalog) -> dict[str, Any]:
    """What makes `generate` search as this run does, once it is told which tokens are allowed.

    A score is the sum of its tokens' log-probabilities: without a length penalty, and by `scoring` over the allowed
    tokens or over the vocabulary. Where nothing ends an item, padding stands behind one that is shorter than others.
    """
    special = {"eos_token_id": catalog.end}
    if catalog.end < 0:
        special = {"bos_token_id": catalog.bos, "eos_token_id": catalog.pad, "pad_token_id": catalog.pad}
    return {
        "do_sample": False,
        "num_beams": config.eval.num_beams,
        "max_new_tokens": int(catalog.lengths.max()),
        "length_penalty": 0.0,
        "early_stopping": False,
        "renormalize_logits": {"constrained": True, "vocab": False}[config.scoring],
        **special,
    }


def _write_catalog(run: Run, answering: Answering, folder: pathlib.Path) -> None:
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        rows = zip(run.items.item_ids, run.items.titles, run.catalog.sequences(), strict=True)
        for item, (raw, title, tokens) in enumerate(rows):
            row = {"item": item, "id": raw, "title": title, "tokens": tokens}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    trie = run.ranker("vocab").trie  # with whole paths: what follows a unique prefix has to be written, too
    np.savez(folder / "trie.npz", token=trie.token, first_child=trie.first_child, item=trie.item)
    form = run.builder.form
    run.catalog.save(folder / "catalog.npz")
    if run.shown is not None:
        np.savez(folder / "shown.npz", tokens=padded(run.shown))
    prompt = {
        "format": FORMAT,
        **answering.facts(),
        "step": answering.step,
        "head": form.head,
        "lead": form.lead,
        "tail": form.tail,
        "line_end": form.line_end,
        "end": form.end,
        "history": run.config.prompt.history,
        "exclude_history": run.builder.exclude_history,
        "max_history": run.builder.max_history,
        "max_tokens": run.config.prompt.max_tokens,
        "widths": run.config.prompt.widths,
        "scoring": run.config.scoring,
        "num_beams": run.config.eval.num_beams,
        "dtype": run.config.model.dtype,
    }
    (folder / "prompt.json").write_text(json.dumps(prompt, indent=2) + "\n")


def _embeddings(run: Run, params: Params) -> np.ndarray | None:
    """float32[I, D], the items' rows of the input table; None where an item is more than one token.

    All processes of a run take part.
    """
    catalog = run.catalog
    if (catalog.lengths > 1).any():
        return None
    table = functools.reduce(operator.getitem, tables(run.policy)[0], params)
    rows = table[catalog.tokens[:, 0]].astype(np.float32)
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def _tokenizer(run: Run) -> Any:
    """The run's tokenizer with its codes; for a model that knows nothing but the catalog, one of those tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = list(run.catalog.code_names)
    if run.tokenizer is not None:
        tokenizer = run.tokenizer.with_codes(dict(zip(names, run.catalog.codes.tolist(), strict=True)))
        tokenizer.init_kwargs.pop("auto_map", None)  # code that did not run here, and is not in the folder
        return tokenizer
    special = ["<pad>", "<bos>", "<unused>"]  # the ids before the catalog's first
    vocabulary = {name: number for number, name in enumerate(special + names)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unused>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", unk_token="<unused>")
