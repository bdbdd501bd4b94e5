"""T5 as loops over tokens and heads, in NumPy and float64, from an exported folder. It knows nothing of our module."""

import json
import math

import numpy as np
from safetensors.numpy import load_file


def bucket(distance, count, far, both_ways):
    """Of key place - query place."""
    offset = 0
    if both_ways:
        count //= 2
        offset = count if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = count // 2
    if distance < exact:
        return offset + distance
    return offset + min(exact + int(math.log(distance / exact) / math.log(far / exact) * (count - exact)), count - 1)


class PlainT5:
    def __init__(self, folder):
        self.settings = json.loads((folder / "config.json").read_text())
        self.weights = {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}

    def linear(self, name, x):
        return self.weights[f"{name}.weight"] @ x

    def norm(self, name, x):
        return x / math.sqrt(np.mean(x**2) + self.settings["layer_norm_epsilon"]) * self.weights[f"{name}.weight"]

    def attention(self, name, x, others, bias):
        """`bias(query, key, head)`, None where a key is not seen."""
        heads, size = self.settings["num_heads"], self.settings["d_kv"]
        q, k, v = (
            [self.linear(f"{name}.{side}", one) for one in xs]
            for side, xs in zip("qkv", (x, others, others), strict=True)
        )
        outs = []
        for t in range(len(x)):
            mixed = []
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                seen = [s for s in range(len(others)) if bias(t, s, h) is not None]
                logits = np.array([q[t][part] @ k[s][part] + bias(t, s, h) for s in seen])
                weights = np.exp(logits - logits.max())
                mixed.append(sum(w * v[s][part] for w, s in zip(weights / weights.sum(), seen, strict=True)))
            outs.append(self.linear(f"{name}.o", np.concatenate(mixed)))
        return outs

    def run(self, side, tokens, memory=None):
        causal = side == "decoder"
        table = self.weights[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        count, far = (self.settings[f"relative_attention_{what}"] for what in ("num_buckets", "max_distance"))

        def among(t, s, h):
            return None if causal and s > t else table[bucket(s - t, count, far, not causal), h]

        x = [self.weights["shared.weight"][token] for token in tokens]
        for number in range(self.settings["num_layers"]):
            name = f"{side}.block.{number}.layer"
            normal = [self.norm(f"{name}.0.layer_norm", one) for one in x]
            x = [
                a + b for a, b in zip(x, self.attention(f"{name}.0.SelfAttention", normal, normal, among), strict=True)
            ]
            if causal:
                normal = [self.norm(f"{name}.1.layer_norm", one) for one in x]
                mixed = self.attention(f"{name}.1.EncDecAttention", normal, memory, lambda *_: 0.0)
                x = [a + b for a, b in zip(x, mixed, strict=True)]
            last = f"{name}.{2 if causal else 1}"
            for t, one in enumerate(x):
                up = np.maximum(self.linear(f"{last}.DenseReluDense.wi", self.norm(f"{last}.layer_norm", one)), 0)
                x[t] = one + self.linear(f"{last}.DenseReluDense.wo", up)
        return [self.norm(f"{side}.final_layer_norm", one) for one in x]

    def logits(self, prompt, answer):
        """Those of each token of `answer`: [len(answer), V]."""
        states = self.run(
            "decoder", [self.settings["decoder_start_token_id"], *answer[:-1]], self.run("encoder", prompt)
        )
        return np.stack(states) * self.settings["d_model"] ** -0.5 @ self.weights["shared.weight"].T
