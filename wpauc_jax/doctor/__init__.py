"""The doctor examines the data, the catalog, the prompts and the checkpoints of a work directory.

Checks and the page that shows what they found belong here. Repairs do not: a check finds and reports.
"""

from wpauc_jax.doctor.examination import Examination, examine, examine_data

__all__ = ["Examination", "examine", "examine_data"]
