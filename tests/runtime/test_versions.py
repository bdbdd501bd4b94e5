"""With what a result was made."""

import importlib.metadata

import wpauc_jax
from wpauc_jax.runtime.versions import made_with


def test_a_package_that_is_not_installed_is_no_error(monkeypatch):
    real = importlib.metadata.version

    def version(package):
        if package in ("polars", "wpauc_jax"):  # the folder alone, from prepared data
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = made_with()["versions"]
    assert versions["polars"] == "not installed" and versions["jax"] == real("jax")
    assert versions["wpauc_jax"] == wpauc_jax.__version__
