"""Where data sets lie that do not come with a package."""

import os
from pathlib import Path


def data_root() -> Path:
    """Return `$ADVPURE_DATA`, or `~/.cache/advpure`; every data set has a subfolder of its name."""
    root = os.environ.get("ADVPURE_DATA")
    return Path(root) if root else Path.home() / ".cache" / "advpure"
