"""Checks of data, catalog, prompts and checkpoints of a work directory.

A check finds and reports; it mends nothing.
"""

from wpauc_jax.doctor.examination import Examination, examine

__all__ = ["Examination", "examine"]
