"""The ground that a run stands on.

Files, hashes, locks, processes, the mesh of devices, signals and progress belong here. Items, models and losses do not.
"""
