"""The errors that users meet: input or a model that cannot be used, and a missing package."""


class BadInput(ValueError):
    """Refuse an input in one line: the value, the rule it breaks, the fix.

    Args:
        subject: What was given, with its value.
        rule: The rule it breaks, as a verb phrase.
        fix: What to do instead.

    Example:
        >>> print(BadInput("epsilon 8", "is above 1", "write 8/255"))
        epsilon 8 is above 1; write 8/255
        >>> len(str(BadInput("x" * 5000, "is no name", "use letters")))
        429
    """

    def __init__(self, subject: str, rule: str, fix: str) -> None:
        """Store the three parts and join them into the message."""
        self.subject, self.rule, self.fix = subject, rule, fix
        super().__init__(" ".join(f"{_shortened(subject)} {rule}; {fix}".splitlines()))

    def __reduce__(self) -> tuple[type["BadInput"], tuple[str, str, str]]:
        """Let the error cross process borders."""
        return type(self), (self.subject, self.rule, self.fix)


class ModelFault(BadInput):
    """Refuse a model for a flaw of its own, which an audit reports by its name.

    Args:
        subject: As `BadInput`.
        rule: Likewise.
        fix: Likewise.
        fault: Name of the flaw, one of `FAULTS`.

    Example:
        >>> ModelFault("a model", "answers twice", "mend it", "unrepeatable").fault
        'unrepeatable'
    """

    def __init__(self, subject: str, rule: str, fix: str, fault: str) -> None:
        """Store the name beside the message."""
        super().__init__(subject, rule, fix)
        self.fault = fault

    def __reduce__(self) -> tuple[type["ModelFault"], tuple[str, str, str, str]]:  # type: ignore[override]
        """Let the error cross process borders."""
        return type(self), (self.subject, self.rule, self.fix, self.fault)


FAULTS = {
    "training": "answers otherwise in training mode than in evaluation mode",
    "batch-statistics": "normalises by the statistics of the batch",
    "buffers": "changes its buffers while it answers",
    "unrepeatable": "answers two equal calls differently",
    "in-place": "changes the images that it is given",
    "probabilities": "answers with probabilities instead of logits",
    "not-finite": "answers, or has gradients, that are not finite",
    "chance": "is no better than chance on the images as they are",
}
"""What a `ModelFault` may be about."""


def _shortened(text: str, most: int = 400) -> str:
    """Return a text, without its middle where a value made it long."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


class MissingExtra(ImportError):
    """Say which optional extra brings a package that is not installed.

    `advpure.base.extras.optional` raises it where a package is imported, and tells it from an
    installed package that is broken.

    Example:
        >>> print(MissingExtra("advertorch", "interop"))
        advertorch is not installed; pip install 'advpure[interop]' brings it
    """

    def __init__(self, package: str, extra: str) -> None:
        """Build the message from the package and the extra that brings it."""
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed; pip install 'advpure[{extra}]' brings it")

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str]]:
        """Let the error cross process borders."""
        return type(self), (self.package, self.extra)


for _public in (BadInput, MissingExtra):
    _public.__module__ = "advpure"  # where users import them from, and what a traceback shows
