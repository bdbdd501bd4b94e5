"""Free writing and the nearest titles, against plain full passes over the model."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.worlds import forward, some_prompts, tiny_policy
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.items import padded
from wpauc_jax.evaluation.grounding import grounded_scores, make_grounded_search, popularity_factors, text_states, write

END, LEAD, MOST = 2, (5, 7), 6
TITLES = [(3, 4, END), (3, 9, 8, END), (11, END), (14, 15, 16, 17, END), (20, 3, END)]
TOKENS = padded(TITLES)


class Titles:
    """What a grounded search looks at of a catalog."""

    tokens, end = np.pad(TOKENS, ((0, 0), (0, MOST - TOKENS.shape[1])), constant_values=-1), END


def plainly_written(row: int) -> list[int]:
    policy, params = tiny_policy()
    prompts = some_prompts()
    tokens = np.asarray(prompts.tokens)[row, : int(prompts.lengths[row])].tolist()
    out: list[int] = []
    while len(out) < MOST and (not out or out[-1] != END):
        out.append(int(forward(policy, params, jnp.asarray([tokens + out]))[0, -1].argmax()))
    return out


def plain_state(tokens) -> np.ndarray:
    """The state behind `LEAD` and the tokens before `END`."""
    policy, params = tiny_policy()
    text = [*LEAD, *(token for token in tokens if token != END)]
    return np.asarray(policy.hidden(params, jnp.asarray([text], jnp.int32)))[0, -1]


def test_what_is_written_is_the_likeliest_token_again_and_again():
    policy, params = tiny_policy()
    found = np.asarray(jax.jit(lambda p, q: write(policy, p, q, end=END, most=MOST))(params, some_prompts()))
    for row in range(3):
        wanted = plainly_written(row)
        assert found[row].tolist() == wanted + [END] * (MOST - len(wanted))


def test_nothing_follows_the_end_of_a_title():
    """A head whose likeliest token is always the end writes it and stops."""
    policy, params = tiny_policy()
    state = policy.prefill(params, some_prompts()).hidden
    forced = params | {"embed": params["embed"].at[END].set(100 * state[0])}
    if "lm_head" in params:
        forced["lm_head"] = params["lm_head"].at[END].set(100 * state[0])
    first = jax.tree.map(lambda rows: rows[:1], some_prompts())
    found = write(policy, forced, first, end=END, most=3)
    assert found.tolist() == [[END] * 3]


def test_a_text_is_read_alone_behind_the_lead():
    policy, params = tiny_policy()
    texts = jnp.asarray([[3, 4, END, -1], [3, 9, 8, 6], [END, 9, 9, 9]], jnp.int32)
    found = np.asarray(text_states(policy, params, texts, LEAD, END))
    for row, text in enumerate([(3, 4), (3, 9, 8, 6), ()]):
        np.testing.assert_allclose(found[row], plain_state(text), atol=1e-5)


def test_lists_are_by_distance_scaled_and_without_what_is_left_out():
    policy, params = tiny_policy()
    prompts, counts = some_prompts(), np.array([0, 10, 5, 2, 8])
    nearer = popularity_factors(counts, 1.5)
    np.testing.assert_allclose(nearer, (1 + counts / 10) ** -1.5, rtol=1e-6)
    excluded = np.array([[-1, -1], [1, 1], [0, 4]], np.int32)
    search = make_grounded_search(policy, Titles, LEAD, num_items=5, nearer=nearer)
    found = search(params, PromptBatch(prompts.tokens, prompts.lengths, jnp.asarray(excluded)))
    for row in range(3):
        written = plain_state(plainly_written(row))
        distance = np.array([np.linalg.norm(written - plain_state(title)) for title in TITLES])
        score = -(distance - distance.min()) / np.ptp(distance) * nearer
        rest = [item for item in range(5) if item not in excluded[row]]
        wanted = sorted(rest, key=lambda item: -score[item])
        assert np.asarray(found.items[row]).tolist() == wanted + [-1] * (5 - len(wanted))
        np.testing.assert_allclose(found.scores[row, : len(wanted)], score[wanted], atol=1e-4)
    changed = jax.tree.map(lambda leaf: leaf * 1.5, params)
    again = search(changed, PromptBatch(prompts.tokens, prompts.lengths))
    fresh = make_grounded_search(policy, Titles, LEAD, num_items=5, nearer=nearer)
    np.testing.assert_array_equal(
        again.items, fresh(changed, PromptBatch(prompts.tokens, prompts.lengths)).items
    )  # titles are read anew for other parameters


def test_equal_distances_and_equal_counts_are_no_division_by_zero():
    states = jnp.ones((2, 4))
    assert not np.asarray(grounded_scores(states, jnp.ones((3, 4)), jnp.ones(3), None)).any()
    np.testing.assert_array_equal(popularity_factors(np.array([4, 4]), 2.0), [1.0, 1.0])
