"""Attacks on purifiers: a callable, images, labels and settings in; adversarial images out."""

if __name__ != "advpure.attacks":
    raise ImportError(f"this package is advpure.attacks, not {__name__}")
