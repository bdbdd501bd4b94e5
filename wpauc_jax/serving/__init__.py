"""A server that answers histories over HTTP, and a page to try it.

What a list is made of does not belong here: see `wpauc_jax.stages.recommender`.
"""
