"""What a run would cost on a machine that is not here.

Here a step is compiled for a TPU topology and its program is read; nothing runs."""
