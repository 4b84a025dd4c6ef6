"""``advpure check-grad``: placeholder until the checker lands."""


def check_grad() -> None:
    """Check gradients."""
