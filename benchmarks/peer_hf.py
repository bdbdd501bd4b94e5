"""The Hugging Face way of the same work, as a process of its own that does a step of it for each line it reads.

    python -m benchmarks.peer_hf --shape=mini                   # RL; --task=sft, --task=evaluate

Needs torch, transformers and NumPy, not JAX: `benchmarks.rl_step --peer`, `benchmarks.sft --peer` and
`benchmarks.evaluate --peer` start it with the interpreter they are given. Each step prints one JSON line of seconds.

- rl: what ReRe's and MiniOneRec's trainers do. `generate` with one beam a candidate and a look-up in a Python
  dictionary of prefixes per beam and token; log-probabilities of policy and reference on B * G whole sequences; GRPO
  with the k3 KL; a global-norm clip; AdamW.
- sft: a row a target, padded to the longest of its batch; logits of all tokens; the clip; AdamW.
- evaluate: `generate` with beams and a prefix function.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2Config, Qwen2ForCausalLM

from benchmarks.memory import release_memory
from benchmarks.shapes import (
    EOS,
    KL_COEF,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    SHAPES,
    Shape,
    make_catalog,
    prompts,
    target_rows,
)


class PrefixConstraint(LogitsProcessor):
    """Log-softmax over the vocabulary, then everything but the legal continuations is masked out."""

    def __init__(self, items: np.ndarray, prompt: int):
        self.prompt = prompt
        self.legal: dict[tuple[int, ...], set[int]] = {}
        for item in items.tolist():
            for end, token in enumerate([*item, EOS]):
                self.legal.setdefault(tuple(item[:end]), set()).add(token)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Ids [B * G, T + t] and logits [B * G, V] -> log-probabilities, -inf where illegal."""
        scores = torch.log_softmax(scores.float(), dim=-1)
        mask = torch.full_like(scores, -torch.inf)
        for row, prefix in enumerate(ids[:, self.prompt :].tolist()):
            mask[row, list(self.legal.get(tuple(prefix), {EOS}))] = 0.0
        return scores + mask


class Peer:
    """Policy, reference and optimiser."""

    def __init__(self, shape: Shape, device: str = "cpu", dtype: str = "float32"):
        torch.manual_seed(0)
        self.shape = shape
        self._place = {"device": device, "dtype": getattr(torch, dtype)}
        self.policy, self.reference = self._model(), self._model()
        self.reference.load_state_dict(self.policy.state_dict())
        self.reference.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=LEARNING_RATE)
        self.constraint = LogitsProcessorList([PrefixConstraint(make_catalog(shape), shape.prompt)])

    def step(self, tokens: torch.Tensor) -> dict[str, float]:
        """Seconds of one step on prompts [B, T]."""
        tokens = tokens.to(self._place["device"])
        clock = [self._now()]
        with torch.no_grad():
            sequences = self._rollout(tokens)
            clock.append(self._now())
            reference = self._logps(self.reference, sequences)
        clock.append(self._now())
        self._update(sequences, reference)
        clock.append(self._now())
        parts = np.diff(clock).tolist()
        names = ("rollout_s", "reference_s", "update_s")
        return dict(zip(names, parts, strict=True)) | {"step_s": sum(parts)}

    def teach(self, number: int, max_history: int) -> dict[str, float]:
        """Seconds of an SFT step on `shape.users` rows."""
        tokens, lengths = target_rows(self.shape, self.shape.users, max_history=max_history, seed=number)
        place = np.arange(tokens.shape[1])
        labels = np.where(place < lengths[:, None] - self.shape.levels - 1, -100, tokens)
        labels = np.where(place < lengths[:, None], labels, -100)
        ids, targets, mask = (torch.from_numpy(x).to(self._place["device"]) for x in (tokens, labels, tokens > 0))
        start = self._now()
        self.policy(ids, attention_mask=mask.long(), labels=targets).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"step_s": self._now() - start, "targets": self.shape.users}

    @torch.no_grad()
    def answer(self, tokens: torch.Tensor) -> dict[str, float]:
        """Seconds of `shape.group` items for each of the prompts [B, T]."""
        tokens = tokens.to(self._place["device"])
        legal = {prefix: sorted(after) for prefix, after in self.constraint[0].legal.items()}
        start = self._now()
        self._beams(
            tokens,
            prefix_allowed_tokens_fn=lambda _, ids: legal.get(tuple(ids[self.shape.prompt :].tolist()), [EOS]),
        )
        return {"step_s": self._now() - start, "users": self.shape.users}

    def _now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self._place["device"] != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _model(self) -> Qwen2ForCausalLM:
        shape = self.shape
        config = Qwen2Config(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            intermediate_size=shape.ffn,
            vocab_size=shape.vocab,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=2,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        return Qwen2ForCausalLM(config).to(**self._place).eval()

    def _rollout(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._beams(tokens, logits_processor=self.constraint)

    def _beams(self, tokens: torch.Tensor, **constraint: Any) -> torch.Tensor:
        """`shape.group` beams behind each prompt, within what `constraint` allows."""
        return self.policy.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            num_beams=self.shape.group,
            num_return_sequences=self.shape.group,
            do_sample=False,
            max_new_tokens=self.shape.levels + 1,
            length_penalty=0.0,
            **constraint,
        )

    def _logps(self, model: Qwen2ForCausalLM, sequences: torch.Tensor) -> torch.Tensor:
        new = sequences.shape[1] - self.shape.prompt
        outputs = model(sequences, attention_mask=torch.ones_like(sequences), logits_to_keep=new + 1)
        logps = torch.log_softmax(outputs.logits[:, :-1].float(), dim=-1)
        return torch.gather(logps, -1, sequences[:, -new:, None])[..., 0]

    def _update(self, sequences: torch.Tensor, reference: torch.Tensor) -> None:
        rewards = torch.zeros(self.shape.users, self.shape.group, device=sequences.device)
        rewards[:, 3] = 1.0  # every group has its hit, so that no group is dead
        centred = rewards - rewards.mean(1, keepdim=True)
        advantages = (centred / (rewards.std(1, keepdim=True) + 1e-4)).reshape(-1, 1)
        logps = self._logps(self.policy, sequences)
        log_ratio = reference - logps
        kl = torch.exp(log_ratio) - log_ratio - 1
        ratio = torch.exp(logps - logps.detach())
        loss = -(ratio * advantages - KL_COEF * kl).mean(1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()


# By --task: what a peer does for the line of that number.
TASKS: dict[str, Callable[[Peer, int, argparse.Namespace], dict[str, float]]] = {
    "rl": lambda peer, number, _: peer.step(torch.from_numpy(prompts(peer.shape, number)).long()),
    "sft": lambda peer, number, options: peer.teach(number, options.max_history),
    "evaluate": lambda peer, number, _: peer.answer(torch.from_numpy(prompts(peer.shape, number)).long()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--task", choices=TASKS, default="rl")
    parser.add_argument("--max-history", type=int, default=10, help="items before an SFT target")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch likes")
    parser.add_argument("--set", default="{}", help="JSON object of fields of the shape to replace")
    parser.add_argument("--device", default="cpu", help="cuda: on the GPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of parameters and of all")
    parser.add_argument("--release-memory", action="store_true", help="between steps; small ones take longer for it")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = Shape(**{**vars(SHAPES[options.shape]), **json.loads(options.set)})
    peer = Peer(shape, options.device, options.dtype)
    for number, _ in enumerate(sys.stdin):
        result = TASKS[options.task](peer, number, options)
        if options.release_memory:
            release_memory()
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
