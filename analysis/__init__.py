"""Measurements that explain why a purifier is or is not robust."""

if __name__ != "advpure.analysis":
    raise ImportError(f"this package is advpure.analysis, not {__name__}")
