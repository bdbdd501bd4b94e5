"""Codes by a residual-quantised autoencoder, its loss, and what becomes of codes that no item takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.data_worlds import clustered_points
from wpauc_jax.catalog.rqvae import COMMITMENT, RqVae, rqvae_codes, wake

POINTS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture
def model():
    model = RqVae(6, 2, 5, nnx.Rngs(0))
    model.books[...] = jnp.asarray(np.random.default_rng(1).normal(size=model.books.shape), jnp.float32)
    return model


def by_hand(model, points):
    """(codes, the parts of the loss), in loops."""
    latents, books = np.asarray(model.encoder(points), np.float64), np.asarray(model.books[...], np.float64)
    codes, rebuilt, quantised = [], 0.0, 0.0
    for point, latent in zip(points, latents, strict=True):
        left, sum_, row = latent.copy(), np.zeros_like(latent), []
        for book in books:
            code = int(((book - left) ** 2).sum(1).argmin())
            quantised += ((left - book[code]) ** 2).sum()
            left, sum_ = left - book[code], sum_ + book[code]
            row.append(code)
        codes.append(row)
        rebuilt += ((point - np.asarray(model.decoder(jnp.asarray(sum_, jnp.float32)))) ** 2).sum()
    return np.array(codes), rebuilt / len(points), quantised / len(points)


def test_codes_and_loss_are_those_of_plain_loops(model):
    codes, rebuilt, quantised = by_hand(model, POINTS)
    np.testing.assert_array_equal(model.quantised(model.encoder(POINTS))[0], codes)
    assert float(model.loss(POINTS)) == pytest.approx(rebuilt + (1 + COMMITMENT) * quantised, rel=1e-5)


def test_each_part_of_the_loss_moves_what_it_is_to_move(model):
    grad = nnx.grad(lambda model: model.loss(POINTS))(model)
    codes, residuals, taken = map(np.asarray, model.quantised(model.encoder(POINTS)))
    for level in range(2):  # a code is drawn to the residuals that took it, and by nothing else
        for code in range(5):
            members = codes[:, level] == code
            wanted = 2 * (taken[members, level] - residuals[members, level]).sum(0) / len(POINTS)
            np.testing.assert_allclose(grad.books[...][level, code], wanted, atol=1e-5)

    def of_latent(latent):  # the decoder's gradient at the sum of the codes, and the commitment of the first level
        _, residuals, taken = model.quantised(latent)
        sum_ = jax.lax.stop_gradient(taken.sum(1))
        rebuilt = ((POINTS - model.decoder(latent + sum_ - jax.lax.stop_gradient(latent))) ** 2).sum()
        return (rebuilt + COMMITMENT * ((residuals - jax.lax.stop_gradient(taken)) ** 2).sum()) / len(POINTS)

    latent = model.encoder(POINTS)
    bias = jax.grad(of_latent)(latent).sum(0)  # the gradient of the encoder's last bias
    np.testing.assert_allclose(grad.encoder.layers[4].bias[...], bias, rtol=1e-4, atol=1e-5)


def test_a_code_that_nothing_takes_is_set_to_a_residual(model):
    model.books[...] = model.books[...].at[1, 3].set(1e3)  # far from all
    _, residuals, _ = model.quantised(model.encoder(POINTS))
    before = np.asarray(model.books[...])
    used = [np.unique(np.asarray(model.quantised(model.encoder(POINTS))[0])[:, level]) for level in range(2)]
    wake(model, POINTS, np.random.default_rng(0))
    after = np.asarray(model.books[...])
    for level in range(2):
        idle = np.setdiff1d(np.arange(5), used[level])
        np.testing.assert_array_equal(after[level, used[level]], before[level, used[level]])
        for code in idle:
            assert (np.abs(np.asarray(residuals)[:, level] - after[level, code]).max(1) < 1e-6).any()
    assert 3 in np.setdiff1d(np.arange(5), used[1])


def test_near_points_share_codes_and_the_same_seed_gives_the_same():
    points = clustered_points()  # three far groups of four parts of five
    codes = rqvae_codes(points, levels=2, codes=4, seed=0)
    parts = codes.reshape(12, 5, 2)
    assert (parts == parts[:, :1]).all()
    groups = [set(group) for group in codes[:, 0].reshape(3, 20).tolist()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    np.testing.assert_array_equal(rqvae_codes(points, levels=2, codes=4, seed=0), codes)


def test_all_codes_of_a_level_are_used():
    points = np.random.default_rng(2).normal(size=(150, 16)).astype(np.float32) ** 3
    codes = rqvae_codes(points, levels=3, codes=16, seed=1)
    assert [len(np.unique(level)) for level in codes.T] == [16, 16, 16]


def test_fewer_points_than_codes():
    assert len(np.unique(rqvae_codes(np.eye(3), levels=2, codes=64, seed=0), axis=0)) == 3
    assert (rqvae_codes(np.ones((5, 2)), levels=2, codes=4, seed=0) == 0).all()
