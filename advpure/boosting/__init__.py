"""Boosting: images are refined along the gradients of a classifier that knows what is real."""
