"""Accuracy and compression at every time step."""
