"""Files of configs/ as values: a study file, and the configuration file that a study takes as its base."""

import importlib.util
import pathlib
from typing import Any

from wpauc_jax.config import Config, ConfigError, from_config_dict
from wpauc_jax.config.fields import shown
from wpauc_jax.study.plan import Study


def read_config(path: pathlib.Path | str, argument: str | None = None) -> Config:
    """What `get_config(argument)` of a configuration file returns. Raises ConfigError where it cannot be had."""
    return from_config_dict(_called(pathlib.Path(path), "get_config", argument), Config)


def read_study(path: pathlib.Path | str, argument: str | None = None) -> Study:
    """What `get_study(argument)` of a study file returns. Raises ConfigError, with the file, where it cannot be had."""
    study = _called(pathlib.Path(path), "get_study", argument)
    if not isinstance(study, Study):
        raise ConfigError(f"{path}: get_study returns {shown(study)}, not a Study")
    return study


def _called(path: pathlib.Path, function: str, argument: str | None) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a file of configs/")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise ConfigError(f"{path} has no function {function}")
        return getattr(module, function)(argument)
    except ConfigError:
        raise
    except Exception as error:  # a user's file is a program and may raise anything
        raise ConfigError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
