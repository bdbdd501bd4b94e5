"""`python -m wpauc_jax.config` prints the reference of all settings, which docs/settings.md holds."""

from wpauc_jax.config.reference import reference

if __name__ == "__main__":
    print(reference(), end="")
