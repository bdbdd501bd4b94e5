"""Makes the tiny Hugging Face checkpoints and logits that tests/models/test_pretrained.py compares with.

    python benchmarks/golden_models.py tests/golden

Needs PyTorch beside the `transformers` that the project itself needs: run it in an environment of its own (torch 2.13
and transformers 5.23 made the files in the repository). Weights are random from fixed seeds.
"""

import pathlib
import sys
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

_SHAPE: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "initializer_range": 0.2,
}
_LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS: dict[str, tuple[type[PreTrainedModel], PretrainedConfig]] = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**_SHAPE, tie_word_embeddings=False)),
    "qwen2_5": (Qwen2ForCausalLM, Qwen2Config(**_SHAPE, tie_word_embeddings=True)),
    "llama3": (LlamaForCausalLM, LlamaConfig(**_SHAPE, head_dim=16, rope_parameters=_LLAMA3, tie_word_embeddings=True)),
}


def tiny_model(name: str) -> PreTrainedModel:
    """A random model of MODELS in float32, biases and norms too."""
    torch.manual_seed(0)
    family, config = MODELS[name]
    model = family(config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("bias"):
                value.normal_(0.0, 0.2)
            elif key.endswith("norm.weight"):
                value.uniform_(0.5, 1.5)
    return model


def tokens() -> np.ndarray:
    """int64[2, 40]: longer than the context that Llama 3's rope scaling stretches."""
    return np.random.default_rng(0).integers(0, _SHAPE["vocab_size"], (2, 40))


def logits(model: PreTrainedModel) -> np.ndarray:
    """float32[2, 40, V] at `tokens`."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens())).logits.float().numpy()


def main() -> None:
    root = pathlib.Path(sys.argv[1])
    for name in MODELS:
        model = tiny_model(name)
        model.save_pretrained(root / name, max_shard_size="20KB")
        np.savez_compressed(root / name / "golden.npz", tokens=tokens(), logits=logits(model))
        print(root / name, sum(path.stat().st_size for path in (root / name).iterdir()), "bytes")


if __name__ == "__main__":
    main()
