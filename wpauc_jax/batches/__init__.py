"""Prepared data and a catalog become batches of arrays.

Here are prompts, packing and pipelines; nothing here runs on a device."""
