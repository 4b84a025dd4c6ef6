"""Metrics of images and of sets of images, by name."""
