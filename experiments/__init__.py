"""Tables and figures of papers as data: what to run, and the numbers that were published."""

if __name__ != "advpure.experiments":
    raise ImportError(f"this package is advpure.experiments, not {__name__}")
