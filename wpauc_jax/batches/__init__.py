"""Prepared data and a catalog become batches of arrays.

Prompts, packing, pipelines and the types of batches belong here. Models and anything that runs on a device do not.
"""
