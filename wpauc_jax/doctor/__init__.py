"""Examines a work directory: prepared data, catalogue, prompts, checkpoints. docs/doctor.md says what is looked for."""

from wpauc_jax.doctor.examination import Examination, examine

__all__ = ["Examination", "examine"]
