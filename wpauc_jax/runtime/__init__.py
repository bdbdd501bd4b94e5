"""The ground a run stands on.

Here are files, hashes, processes, the mesh, signals and progress. Nothing here knows of items, models or losses.
"""
