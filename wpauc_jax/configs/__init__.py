"""Runs to start from: files that `--config` names, and in `studies/` those of `python -m wpauc_jax.study`.

Each says its command and what to expect. What a setting means does not belong here: see `wpauc_jax.config`.
"""
