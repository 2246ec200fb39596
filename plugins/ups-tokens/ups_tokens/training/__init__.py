"""Losses on token sequences, and the stage that trains a model on them."""
