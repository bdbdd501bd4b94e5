"""The sequential families as plain loops over one user's tokens, in NumPy and float64."""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def norm(p, x, eps):
    return (x - x.mean()) / np.sqrt(x.var() + eps) * p["scale"] + p["bias"]


def sasrec(p, tokens, config):
    x = [p["embed"][token] + p["positions"][t] for t, token in enumerate(tokens)]
    for block in p["blocks"].values():
        normal = [norm(block["attention_norm"], one, config.norm_eps) for one in x]
        q, k, v = (
            [linear(block[name], one).reshape(config.num_heads, -1) for one in normal] for name in ("q", "k", "v")
        )
        new = []
        for t in range(len(x)):
            heads = []
            for h in range(config.num_heads):
                scores = np.array([q[t][h] @ k[s][h] / math.sqrt(config.head_dim) for s in range(t + 1)])
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                heads.append(sum(weights[s] * v[s][h] for s in range(t + 1)))
            y = x[t] + linear(block["out"], np.concatenate(heads))
            new.append(
                y + linear(block["down"], gelu(linear(block["up"], norm(block["ffn_norm"], y, config.norm_eps))))
            )
        x = new
    return np.stack([norm(p["norm"], one, config.norm_eps) for one in x])


def hstu(p, tokens, config, times=None):
    x = [p["embed"][token] for token in tokens]
    for block in p["blocks"].values():
        normal = [norm(block["norm"], one, config.norm_eps) for one in x]
        u, v, q, k = ([silu(linear(block[name], one)) for one in normal] for name in ("u", "v", "q", "k"))
        size, new = config.head_dim, []
        for t in range(len(x)):
            heads = []
            for h in range(config.num_heads):
                part = slice(h * size, (h + 1) * size)
                mixed = np.zeros(size)
                for s in range(t + 1):
                    bias = block["distance_bias"][t - s]
                    if times is not None:
                        bucket = int(np.floor(np.log(max(abs(times[t] - times[s]), 1)) / 0.301))
                        bias = bias + block["time_bias"][min(bucket, config.time_buckets - 1)]
                    weight = silu(q[t][part] @ k[s][part] + bias)
                    mixed += weight / config.num_positions * v[s][part]
                heads.append(mixed)
            gated = norm(block["mixed_norm"], np.concatenate(heads), config.norm_eps) * u[t]
            new.append(x[t] + linear(block["out"], gated))
        x = new
    return np.stack([norm(p["norm"], one, config.norm_eps) for one in x])


def gru4rec(p, tokens, config):
    x = [p["embed"][token] for token in tokens]
    for layer in p["layers"].values():
        state, states = np.zeros(config.ffn_width), []
        for one in x:
            reset, update, new = np.split(linear(layer["inputs"], one), 3)
            reset_, update_, new_ = np.split(linear(layer["state"], state), 3)
            candidate = np.tanh(new + sigmoid(reset + reset_) * new_)
            keep = sigmoid(update + update_)
            state = keep * state + (1 - keep) * candidate
            states.append(state)
        x = states
    return np.stack([linear(p["out"], one) for one in x])


def caser(p, tokens, config):
    states = []
    for t in range(len(tokens)):
        window = [
            p["embed"][tokens[s]] if s >= 0 else np.zeros(config.width) for s in range(t - config.window + 1, t + 1)
        ]
        features = []
        for height in range(1, config.window + 1):
            views = [np.concatenate(window[s : s + height]) for s in range(config.window - height + 1)]
            filtered = [np.maximum(linear(p["horizontal"][str(height)], view), 0) for view in views]
            features.append(np.max(filtered, axis=0))
        features += [linear(p["vertical"], np.array([one[d] for one in window])) for d in range(config.width)]
        states.append(np.maximum(linear(p["out"], np.concatenate(features)), 0))
    return np.stack(states)


STATES = {"sasrec": sasrec, "hstu": hstu, "gru4rec": gru4rec, "caser": caser}
