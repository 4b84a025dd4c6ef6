"""What a verb or a function uses that is not told another; imports nothing."""

DEFAULT_DATASET = "digits"
"""The data set."""
