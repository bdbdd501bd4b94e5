"""Holds a Hugging Face folder's model against PyTorch's: tokens, logits and greedy text.

    python -m benchmarks.parity answers FOLDER ANSWERS.npz      # where PyTorch and transformers are
    python -m benchmarks.parity compare FOLDER ANSWERS.npz      # where this project is
    python -m benchmarks.parity compare FOLDER ANSWERS.npz --dtype=bfloat16

Both halves read the same folder and the prompts below, in an environment each, so that neither needs the other's. A
comparison ends with code 1 where tokens or greedy text differ, or float32 logits by more than --limit. The folder may
be one that mode=export has written.
"""

import argparse
import pathlib
import resource
import sys
import time
from typing import Any

import numpy as np

PROMPTS = (
    "The capital of France is",
    "Items that one user chose, the latest last:\nHP 63XL Black Ink Cartridge\nAvery Easy Peel Address Labels\n",
    "def fibonacci(n):\n",
    "Question: What do you need to staple forty sheets of paper?\nAnswer:",
)
NEW_TOKENS = 24
TIMED = (8, 160)  # sequences and their length
LIMIT = 1e-3  # of a logit's difference in float32, where logits reach 30, after 30 layers


def answers(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Writes PyTorch's logits and greedy continuations of PROMPTS."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    print(f"{type(model).__name__} loaded in {time.perf_counter() - start:.1f} s, {len(tokenizer)} tokens")
    print(f"settings of generation: {model.generation_config.to_diff_dict()}")
    out = {}
    for i, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([tokenizer(prompt).input_ids])
        with torch.no_grad():
            out[f"logits_{i}"] = model(tokens).logits[0].numpy()
            grown = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                num_beams=1,
                max_new_tokens=NEW_TOKENS,
            )
        out[f"tokens_{i}"], out[f"greedy_{i}"] = tokens[0].numpy(), grown[0, tokens.shape[1] :].numpy()
        print(repr(tokenizer.decode(out[f"greedy_{i}"])))
    np.savez_compressed(path, **out)


def compare(folder: pathlib.Path, path: pathlib.Path, dtype: str, limit: float) -> bool:
    """Whether this project's model agrees with the answers."""
    import jax
    import jax.numpy as jnp

    from wpauc_jax.catalog.tokenizer import Tokenizer
    from wpauc_jax.config import ModelConfig
    from wpauc_jax.models import Policy, load_pretrained

    start = time.perf_counter()
    policy, params = load_pretrained(folder, dtype=dtype, settings=ModelConfig(dtype=dtype))
    print(f"loaded in {time.perf_counter() - start:.1f} s, parameters and computation in {dtype}")
    forward = jax.jit(Policy.forward, static_argnums=0)
    tokenizer, same = Tokenizer(str(folder)), True
    with np.load(path) as expected:
        longest = max(expected[f"tokens_{i}"].size for i in range(len(PROMPTS)))
        row = np.zeros((1, longest + NEW_TOKENS), np.int32)  # causal attention does not look at what is behind
        for i in range(len(PROMPTS)):
            tokens, greedy = expected[f"tokens_{i}"], expected[f"greedy_{i}"]
            row[:] = 0
            row[0, : len(tokens) + len(greedy)] = np.concatenate([tokens, greedy])
            logits = np.asarray(forward(policy, params, jnp.asarray(row)))[0]
            theirs = expected[f"logits_{i}"]
            difference = float(np.abs(logits[: len(tokens)] - theirs).max())
            # Where each token of theirs is our best behind those before it, our greedy text is theirs.
            equal = bool((logits[len(tokens) - 1 :][: len(greedy)].argmax(-1) == greedy).all())
            ours = [*tokenizer.bos, *tokenizer.encode([PROMPTS[i]])[0]]
            same &= equal and ours == tokens.tolist() and (difference < limit or dtype != "float32")
            print(
                f"prompt {i}: logits differ by at most {difference:.2e} and reach {np.abs(theirs).max():.1f}; "
                f"tokens {'the same' if ours == tokens.tolist() else 'DIFFER'}; "
                f"greedy text of {len(greedy)} tokens {'the same' if equal else 'DIFFERS'}"
            )
    seconds = _seconds_of_a_pass(policy, params)
    print(f"a pass over {TIMED[0]} x {TIMED[1]} tokens, without logits: {seconds:.2f} s")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    return same


def _seconds_of_a_pass(policy: Any, params: Any) -> float:
    """The fastest of three."""
    import jax
    import jax.numpy as jnp

    from wpauc_jax.models import Policy

    hidden = jax.jit(Policy.hidden, static_argnums=0)
    tokens = jnp.ones(TIMED, jnp.int32)
    seconds = []
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        hidden(policy, params, tokens).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("answers", "compare"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("answers", type=pathlib.Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--limit", type=float, default=LIMIT)
    arguments = parser.parse_args()
    if arguments.half == "answers":
        answers(arguments.folder, arguments.answers)
    elif not compare(arguments.folder, arguments.answers, arguments.dtype, arguments.limit):
        sys.exit(1)


if __name__ == "__main__":
    main()
