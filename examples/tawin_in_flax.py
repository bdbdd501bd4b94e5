"""TAWin in a training loop of your own: any Flax ranking model, any Optax optimiser, one call to `tawin_loss`.

    python examples/tawin_in_flax.py

256 users prefer 100 items by a known distribution of rank 32; the model has rank 6, so it must choose what to get
right. After a cross-entropy start, TAWin with anchor K - 1 buys Recall@K. Two objectives without a group stand beside
it: what GRPO is in expectation, and soft Recall@K. Recall is exact, as a share of the optimum.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wpauc_jax.objectives import catalog_cross_entropy, exact_group_loss, soft_top_k_loss, tawin_loss, top_k_threshold

USERS, ITEMS, GROUP, TRUE_RANK, RANK = 256, 100, 32, 32, 6
CUTOFFS = (1, 3, 5, 10)
everyone = jnp.arange(USERS)
user_key, item_key, train_key = jax.random.split(jax.random.key(0), 3)
taste = jax.random.normal(user_key, (USERS, TRUE_RANK)) @ jax.random.normal(item_key, (TRUE_RANK, ITEMS))
truth = jax.nn.log_softmax(2.5 * taste / jnp.sqrt(TRUE_RANK))  # log-probability of each user's next item


class Ranker(nnx.Module):
    """Somebody's model: scores [B, I] as inner products of user and item embeddings."""

    def __init__(self, rngs: nnx.Rngs):
        self.users = nnx.Embed(USERS, RANK, rngs=rngs)
        self.items = nnx.Embed(ITEMS, RANK, rngs=rngs)

    def __call__(self, users):
        return self.users(users) @ self.items.embedding[...].T


def rl_loss(anchor):
    def loss(scores, targets):
        logps, group = jax.lax.top_k(jax.nn.log_softmax(scores), GROUP)  # the top-scored items are the candidates
        rewards = (group == targets[:, None]).astype(jnp.float32)
        return tawin_loss(logps[..., None], rewards, scores=logps, anchor=anchor)[0]  # an item is one token here

    return loss


def closed_form_loss(scores, targets):
    return exact_group_loss(of_targets(jax.nn.log_softmax(scores), targets)).mean()


def soft_loss(k):
    def loss(scores, targets):
        logps, others = jax.nn.log_softmax(scores), jnp.arange(ITEMS)[None] != targets[:, None]
        return soft_top_k_loss(of_targets(logps, targets), top_k_threshold(logps, k, where=others)).mean()

    return loss


def of_targets(logps, targets):
    return jnp.take_along_axis(logps, targets[:, None], axis=1)[:, 0]


def train(model, loss, steps, learning_rate):
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, key):
        targets = jax.random.categorical(key, truth)
        optimizer.update(model, nnx.grad(lambda model: loss(model(everyone), targets))(model))

    for i in range(steps):
        step(model, optimizer, jax.random.fold_in(train_key, i))
    return model


def recall(scores):
    """Expected Recall@K under the true preferences, for each K."""
    order = jnp.argsort(-scores, axis=-1)
    hits = jnp.cumsum(jnp.take_along_axis(jnp.exp(truth), order, axis=-1), axis=-1).mean(0)
    return hits[jnp.array(CUTOFFS) - 1]


def main(anchors=(0, 2, 4, 9), start_steps=1500, steps=1500):
    start = train(Ranker(nnx.Rngs(0)), lambda *args: catalog_cross_entropy(*args).mean(), start_steps, 1e-2)
    before, best = recall(start(everyone)), recall(truth)
    print("recall / optimum  " + "".join(f"{f'@{k}':>8}" for k in CUTOFFS) + "   gains most at")
    print("start             " + "".join(f"{share:8.3f}" for share in before / best))
    losses = {f"TAWin anchor {anchor}": rl_loss(anchor) for anchor in anchors}
    losses |= {"exact GRPO": closed_form_loss} | {f"soft top {anchor + 1}": soft_loss(anchor + 1) for anchor in anchors}
    for name, loss in losses.items():
        after = recall(train(nnx.clone(start), loss, steps, 3e-4)(everyone))
        most = CUTOFFS[int(jnp.argmax((after - before) / best))]
        print(f"{name:18}" + "".join(f"{share:8.3f}" for share in after / best) + f"   K = {most}")


if __name__ == "__main__":
    main()
