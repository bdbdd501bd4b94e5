"""Trainings as a paper describes them."""
