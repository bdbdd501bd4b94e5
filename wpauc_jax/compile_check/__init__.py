"""What a run would cost on a machine that is not here.

Compiling a step for a named TPU and reading the compiled program belong here. Nothing that runs a step does.
"""
