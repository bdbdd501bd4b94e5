"""Holds a Hugging Face folder's model against PyTorch's: logits, their log-likelihood and greedy text.

    python -m benchmarks.parity answers FOLDER ANSWERS.npz      # where PyTorch and transformers are
    python -m benchmarks.parity compare FOLDER ANSWERS.npz      # where this project is
    python -m benchmarks.parity compare FOLDER ANSWERS.npz --dtype=bfloat16

Both halves read the same folder and the prompts below, in an environment each, so that neither needs the other's. A
comparison ends with code 1 where float32 logits differ by 1e-3 or greedy text differs at all.
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
LIMIT = 1e-3  # of a logit's difference in float32; logits reach 30, after 30 layers


def answers(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Writes PyTorch's logits and greedy continuations of PROMPTS."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    print(f"loaded in {time.perf_counter() - start:.1f} s")
    out = {}
    for i, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([tokenizer(prompt).input_ids])
        with torch.no_grad():
            out[f"logits_{i}"] = model(tokens).logits[0].numpy()
            grown = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=NEW_TOKENS
            )
        out[f"tokens_{i}"], out[f"greedy_{i}"] = tokens[0].numpy(), grown[0, tokens.shape[1] :].numpy()
        print(repr(tokenizer.decode(out[f"greedy_{i}"])))
    np.savez_compressed(path, **out)


def compare(folder: pathlib.Path, path: pathlib.Path, dtype: str) -> bool:
    """Whether this project's model agrees with the answers."""
    import jax
    import jax.numpy as jnp

    from wpauc_jax.config import ModelConfig
    from wpauc_jax.models import Policy, load_pretrained

    start = time.perf_counter()
    policy, params = load_pretrained(folder, dtype=dtype, settings=ModelConfig(dtype=dtype))
    print(f"loaded in {time.perf_counter() - start:.1f} s, parameters and computation in {dtype}")
    forward = jax.jit(Policy.forward, static_argnums=0)
    same = True
    with np.load(path) as expected:
        for i in range(len(PROMPTS)):
            tokens, greedy = expected[f"tokens_{i}"], expected[f"greedy_{i}"]
            width = len(tokens) + NEW_TOKENS  # one shape a prompt; causal attention ignores what is not there yet
            row = np.zeros((1, width), np.int32)
            row[0, : len(tokens)] = tokens
            logits = np.asarray(forward(policy, params, jnp.asarray(row)))[0, : len(tokens)]
            for place in range(len(tokens), len(tokens) + len(greedy)):
                row[0, place] = int(forward(policy, params, jnp.asarray(row))[0, place - 1].argmax())
            theirs = expected[f"logits_{i}"]
            difference = float(np.abs(logits - theirs).max())
            equal = bool((row[0, len(tokens) : len(tokens) + len(greedy)] == greedy).all())
            same &= equal and (difference < LIMIT or dtype != "float32")
            print(
                f"prompt {i}: logits differ by at most {difference:.2e} and reach {np.abs(theirs).max():.1f}; "
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

    from wpauc_jax.models import Policy, Prompts

    hidden = jax.jit(Policy.hidden, static_argnums=0)
    prompts = Prompts(jnp.ones(TIMED, jnp.int32), jnp.full(TIMED[0], TIMED[1], jnp.int32))
    seconds = []
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        hidden(policy, params, prompts).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("answers", "compare"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("answers", type=pathlib.Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    if arguments.half == "answers":
        answers(arguments.folder, arguments.answers)
    elif not compare(arguments.folder, arguments.answers, arguments.dtype):
        sys.exit(1)


if __name__ == "__main__":
    main()
