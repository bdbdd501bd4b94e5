"""The Hugging Face way of the same RL step, as a process of its own that does a step for each line it reads.

    python -m benchmarks.peer_hf --shape=mini

Needs torch, transformers and NumPy, not JAX: `benchmarks.rl_step --peer` starts it with the interpreter it is given.
It does what ReRe's and MiniOneRec's trainers do: `generate` with one beam a candidate and a look-up in a Python
dictionary of prefixes per beam and token; log-probabilities of policy and reference on B * G whole sequences; GRPO
with the k3 KL; a global-norm clip; AdamW. Each step prints one JSON line of seconds.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2Config, Qwen2ForCausalLM

from benchmarks.memory import release_memory
from benchmarks.shapes import EOS, KL_COEF, LEARNING_RATE, MAX_GRAD_NORM, SHAPES, Shape, make_catalog, prompts


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

    def __init__(self, shape: Shape):
        torch.manual_seed(0)
        self.shape = shape
        self.policy, self.reference = self._model(), self._model()
        self.reference.load_state_dict(self.policy.state_dict())
        self.reference.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=LEARNING_RATE)
        self.constraint = LogitsProcessorList([PrefixConstraint(make_catalog(shape), shape.prompt)])

    def step(self, tokens: torch.Tensor) -> dict[str, float]:
        """Seconds of one step on prompts [B, T]."""
        clock = [time.perf_counter()]
        with torch.no_grad():
            sequences = self._rollout(tokens)
            clock.append(time.perf_counter())
            reference = self._logps(self.reference, sequences)
        clock.append(time.perf_counter())
        self._update(sequences, reference)
        clock.append(time.perf_counter())
        parts = np.diff(clock).tolist()
        names = ("rollout_s", "reference_s", "update_s")
        return dict(zip(names, parts, strict=True)) | {"step_s": sum(parts)}

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
        return Qwen2ForCausalLM(config).eval()

    def _rollout(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.policy.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            num_beams=self.shape.group,
            num_return_sequences=self.shape.group,
            do_sample=False,
            max_new_tokens=self.shape.levels + 1,
            length_penalty=0.0,
            logits_processor=self.constraint,
        )

    def _logps(self, model: Qwen2ForCausalLM, sequences: torch.Tensor) -> torch.Tensor:
        new = sequences.shape[1] - self.shape.prompt
        outputs = model(sequences, attention_mask=torch.ones_like(sequences), logits_to_keep=new + 1)
        logps = torch.log_softmax(outputs.logits[:, :-1].float(), dim=-1)
        return torch.gather(logps, -1, sequences[:, -new:, None])[..., 0]

    def _update(self, sequences: torch.Tensor, reference: torch.Tensor) -> None:
        rewards = torch.zeros(self.shape.users, self.shape.group)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch likes")
    parser.add_argument("--set", default="{}", help="JSON object of fields of the shape to replace")
    parser.add_argument("--release-memory", action="store_true", help="between steps; small ones take longer for it")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = Shape(**{**vars(SHAPES[options.shape]), **json.loads(options.set)})
    peer = Peer(shape)
    for number, _ in enumerate(sys.stdin):
        result = peer.step(torch.from_numpy(prompts(shape, number)).long())
        if options.release_memory:
            release_memory()
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
