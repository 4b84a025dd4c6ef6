"""The defaults of verbs and functions."""

import os

DEFAULT_DATASET = os.environ.get("ADVPURE_DATASET", "cifar10")
"""The data set; the environment variable ADVPURE_DATASET names another one."""
