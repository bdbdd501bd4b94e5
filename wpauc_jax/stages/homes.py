"""Where the stages of a run are kept: in its own work directory, or in that of `sft_from`."""

import pathlib

from wpauc_jax.config import Config
from wpauc_jax.training.checkpoint import holds_steps


def home(config: Config, folder: pathlib.Path, stage: str) -> pathlib.Path:
    """The work directory whose stage counts: that of `sft_from` may have the SFT of this one."""
    return pathlib.Path(config.sft_from) if stage == "sft" and config.sft_from else folder


def is_trained(config: Config, folder: pathlib.Path, stage: str) -> bool:
    """Whether there are best parameters of a stage, in this work directory or in that of `sft_from`."""
    return holds_steps(home(config, folder, stage) / stage / "best")
