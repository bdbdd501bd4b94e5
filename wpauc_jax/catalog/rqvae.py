"""RQ-VAE: codes for items from an autoencoder whose middle is quantised level by level.

Source: TIGER, Rajput et al., arXiv 2305.05065; the quantiser is that of Zeghidour et al., arXiv 2107.03312. As there:
codes begin at the centres of k-means, the weight of the commitment is .25, and a code that no item takes is set anew.
TIGER trains for 20,000 epochs on text embeddings of width 768. This is shorter: `_STEPS` steps of up to `_BATCH` items.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from wpauc_jax.catalog.clustering import residual_clusters

COMMITMENT = 0.25
_LATENT = 32  # numbers that are quantised
_HIDDEN = (128, 64)  # of the encoder; the decoder has them in reverse
_STEPS, _BATCH, _RATE = 3000, 1024, 1e-3
_ROUND = 100  # steps between two looks for codes that no item takes
_SETTLING = 10  # rounds at the end in which no code is set anew


class RqVae(nnx.Module):
    """An encoder, a decoder, and a table of codes for each level."""

    def __init__(self, width: int, levels: int, codes: int, rngs: nnx.Rngs):
        self.encoder = _net((width, *_HIDDEN, _LATENT), rngs)
        self.decoder = _net((_LATENT, *_HIDDEN[::-1], width), rngs)
        self.books = nnx.Param(jnp.zeros((levels, codes, _LATENT)))

    def quantised(self, latent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B, Z] -> codes int32[B, L]; what each level was to quantise, and what it took for it, [B, L, Z] each.

        A level quantises what the levels above leave. No gradient goes from one level to another.
        """
        codes, residuals, taken = [], [], []
        for book in self.books[...]:
            code = ((book**2).sum(-1)[None] - 2 * latent @ book.T).argmin(-1)
            codes.append(code)
            residuals.append(latent)
            taken.append(book[code])
            latent = latent - jax.lax.stop_gradient(taken[-1])
        return jnp.stack(codes, 1), jnp.stack(residuals, 1), jnp.stack(taken, 1)

    def loss(self, points: jax.Array) -> jax.Array:
        """The mean over points [B, D] of the squared error of reconstruction, plus that of the codes, plus commitment.

        The decoder's gradient passes by the quantiser to the encoder. The second term moves codes to the residuals, the
        third moves residuals to their codes.
        """
        latent = self.encoder(points)
        _, residuals, taken = self.quantised(latent)
        through = latent + jax.lax.stop_gradient(taken.sum(1) - latent)
        of_codes = ((jax.lax.stop_gradient(residuals) - taken) ** 2).sum((1, 2))
        committed = ((residuals - jax.lax.stop_gradient(taken)) ** 2).sum((1, 2))
        rebuilt = ((points - self.decoder(through)) ** 2).sum(1)
        return (rebuilt + of_codes + COMMITMENT * committed).mean()


def rqvae_codes(points: np.ndarray, levels: int, codes: int, seed: int) -> np.ndarray:
    """Codes int32[I, levels] for points [I, D].

    A level has never more codes than there are distinct points. The same input gives the same codes on one machine.
    """
    points = np.asarray(points, np.float32)
    points = (points - points.mean(0)) / max(float(points.std()), 1e-6)
    codes = min(codes, len(np.unique(points, axis=0)))
    model = RqVae(points.shape[1], levels, codes, nnx.Rngs(seed))
    model.books[...] = jnp.asarray(residual_clusters(np.asarray(model.encoder(points)), levels, codes, seed)[1])
    optimizer = nnx.Optimizer(model, optax.adamw(_RATE), wrt=nnx.Param)
    rng = np.random.default_rng(seed)
    batch, rounds = min(_BATCH, len(points)), _STEPS // _ROUND
    for number in range(rounds):
        epochs = -(-batch * _ROUND // len(points))
        order = np.concatenate([rng.permutation(len(points)) for _ in range(epochs)])[: batch * _ROUND]
        _train(model, optimizer, jnp.asarray(points[order.reshape(_ROUND, batch)]))
        if number < rounds - _SETTLING:
            wake(model, points, rng)
    return np.asarray(model.quantised(model.encoder(points))[0], np.int32)


def wake(model: RqVae, points: np.ndarray, rng: np.random.Generator) -> None:
    """Sets each code that none of `points` takes to what its level has to quantise of some point."""
    found, residuals, _ = map(np.asarray, model.quantised(model.encoder(points)))
    books = np.array(model.books[...])
    for level, book in enumerate(books):
        idle = np.setdiff1d(np.arange(len(book)), found[:, level])
        book[idle] = residuals[rng.integers(len(points), size=len(idle)), level]
    model.books[...] = jnp.asarray(books)


@nnx.jit
def _train(model: RqVae, optimizer: nnx.Optimizer[RqVae], batches: jax.Array) -> None:
    """A step for each of `batches` [N, B, D]."""

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def step(carry: tuple[RqVae, nnx.Optimizer[RqVae]], points: jax.Array) -> tuple[RqVae, nnx.Optimizer[RqVae]]:
        model, optimizer = carry
        optimizer.update(model, nnx.grad(lambda model: model.loss(points))(model))
        return model, optimizer

    step((model, optimizer), batches)


def _net(widths: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Sequential:
    layers: list[Any] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nnx.Linear(wide, narrow, rngs=rngs), nnx.relu]
    return nnx.Sequential(*layers[:-1])
