"""TAWin as its paper has it: Qwen2.5 on one of its data sets. Items are titles, or semantic ids as new tokens.

    python -m wpauc_jax.main --config=configs/recipes/tawin.py:0.5B-title --workdir=runs/qwen-title
    python -m wpauc_jax.main --config=configs/recipes/tawin.py:1.5B-sid-office --workdir=runs/qwen-office

The argument is SIZE-ITEMS-SET: 0.5B, 1.5B, 3B or 7B; title or sid; industrial, office, toys or yelp. Without SET it is
industrial. The data are those of configs/amazon.py and configs/yelp.py: the same files, fetched or of your own, and the
same protocol. The weights come from the hub, or from a folder: `--config.model.pretrained=FOLDER`.

This needs a GPU or TPU. Expect hours of training on one of them for 0.5B. Cut a larger model over several
(`--config.mesh.fsdp=8`), or train an adapter (`--config.model.lora.rank=16`). Do not take the paper's numbers for
granted: no run at this size has been measured here.

SFT takes at most 10 epochs at a learning rate of 3e-4 and stops after 3 validations without a better one. RL takes one
epoch at 1e-5 on groups of 16. So says the paper. Batches of 128 and 32 users, the clip of .3 and the KL weight of 1e-3
are those of its predecessor's published scripts. The rule `scoring=constrained` is this project's own;
`--config.scoring=vocab` is theirs.
"""

from ml_collections import ConfigDict

from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RlConfig,
    SftConfig,
    to_config_dict,
)
from wpauc_jax.data.protocol import PAPER_DATA

# Layers, width, query heads, key heads, FFN width, rows of the vocabulary, tied head.
SHAPES = {
    "0.5B": (24, 896, 14, 2, 4864, 151_936, True),
    "1.5B": (28, 1536, 12, 2, 8960, 151_936, True),
    "3B": (36, 2048, 16, 2, 11_008, 151_936, True),
    "7B": (28, 3584, 28, 4, 18_944, 152_064, False),
}
CATALOGS = {
    "title": CatalogConfig(ids="title"),
    "sid": CatalogConfig(ids="kmeans", levels=3, codes=256),
}


def get_config(arg: str | None = None) -> ConfigDict:
    return to_config_dict(recipe("tawin.py", arg))


def recipe(file: str, arg: str | None, items: tuple[str, ...] = tuple(CATALOGS)) -> Config:
    """The configuration of an argument. Other recipes begin with it; `file` and `items` are what they take.

    Raises ConfigError for an argument that is none of SIZE-ITEMS and SIZE-ITEMS-SET.
    """
    size, kind, name = _parts(file, arg, items)
    return Config(
        data=PAPER_DATA[name],
        catalog=CATALOGS[kind],
        model=_model(size),
        sft=SftConfig(
            batch_size=128,
            epochs=10,
            evals=10,
            patience=3,
            loss="lm",
            optim=OptimConfig(learning_rate=3e-4, schedule="linear", warmup=20),
        ),
        rl=RlConfig(
            batch_size=32,
            epochs=1,
            group_size=16,
            target_k=3,
            kl_coef=1e-3,
            optim=OptimConfig(learning_rate=1e-5, max_grad_norm=0.3),
        ),
        eval=EvalConfig(batch_size=32),
    )


def _parts(file: str, arg: str | None, items: tuple[str, ...]) -> tuple[str, str, str]:
    """Size, items and data set of an argument."""
    known = [list(SHAPES), list(items), list(PAPER_DATA)]
    parts = (arg or "").split("-")
    parts += ["industrial"] if len(parts) == 2 else []
    if len(parts) != 3 or not all(part in names for part, names in zip(parts, known, strict=True)):
        sizes, kinds, sets = map(", ".join, known)
        raise ConfigError(
            f"configs/recipes/{file} knows no {arg!r}; use "
            f"--config=configs/recipes/{file}:SIZE-ITEMS or SIZE-ITEMS-SET with "
            f"SIZE one of {sizes}, ITEMS one of {kinds} and SET one of {sets}"
        )
    return parts[0], parts[1], parts[2]


def _model(size: str) -> ModelConfig:
    layers, width, heads, kv_heads, ffn_width, vocab_size, tied = SHAPES[size]
    return ModelConfig(
        pretrained=f"Qwen/Qwen2.5-{size}",
        num_layers=layers,
        width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width // heads,
        ffn_width=ffn_width,
        vocab_size=vocab_size,
        rope_theta=1e6,
        tie_embeddings=tied,
        dtype="bfloat16",
        layers="scanned",
        remat="layer",
    )
