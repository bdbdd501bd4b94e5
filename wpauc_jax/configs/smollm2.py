"""SmolLM2-135M with titles as items, on a budget that two CPU cores can pay.

    python -m wpauc_jax.main --config=configs/smollm2.py --config.model.pretrained=FOLDER --config.data.root=DATA

FOLDER is a Hugging Face folder of the model; benchmarks/smollm2_from_gguf.py makes one. DATA is the folder that holds
office/office.inter.gz and office/office.item.gz.

Expect half an hour for the training and an hour for the test of all users; benchmarks/smollm2.py measures on a draw of
them. This shows that a real language model runs from end to end, not how good it can get. A history has five items, a
title at most 12 tokens. SFT takes 200 steps, a fifth of an epoch, and RL takes 10, both on adapters. With a GPU or TPU
start from configs/recipes/tawin.py instead.

bfloat16 is the faster type on a CPU with a matrix unit for it (Intel AMX). Elsewhere give
`--config.model.dtype=float32`.
"""

from ml_collections import ConfigDict

from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    RlConfig,
    SftConfig,
    to_config_dict,
)


def get_config(arg: str | None = None) -> ConfigDict:
    if arg:
        raise ConfigError(f"configs/smollm2.py takes no argument, got {arg!r}")
    return to_config_dict(
        Config(
            data=DataConfig(source="recbole", path="office", k_core=0, max_history=5, split="leave_one_out"),
            catalog=CatalogConfig(ids="title", max_title_tokens=12),
            model=ModelConfig(dtype="bfloat16", layers="scanned", lora=LoraConfig(rank=16)),
            sft=SftConfig(
                batch_size=8, steps=200, evals=1, saves=4, loss="lm", optim=OptimConfig(learning_rate=1e-3, warmup=20)
            ),
            rl=RlConfig(
                rows="latest",
                holdout=0.2,
                batch_size=8,
                steps=10,
                evals=1,
                saves=1,
                group_size=8,
                inject_target="if_missing",  # so short an SFT finds the target in one group of eighty
                target_k=3,
                optim=OptimConfig(learning_rate=1e-4, max_grad_norm=0.3),
            ),
            eval=EvalConfig(num_beams=10, batch_size=16, valid_users=64),
        )
    )
