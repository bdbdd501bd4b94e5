"""Studies: arms of one base configuration, trained with several seeds, compared, and shown.

What an arm is, how arms are run, and the page that says what came out belong here. How one run trains or measures does
not: an arm is a run as `main` does it.
"""

from wpauc_jax.study.plan import SHARED_SFT, Of, Study, StudyOptions

__all__ = ["SHARED_SFT", "Of", "Study", "StudyOptions"]
