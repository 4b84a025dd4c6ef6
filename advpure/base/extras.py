"""Import optional packages, and tell one that is not installed from one that is broken.

A package that an extra brings is imported where it is first needed, inside `optional`. Whatever
goes wrong there becomes one line: the extra to install when the package is not there, the true
reason when it is there and its import fails.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from advpure.base.errors import BadInput, MissingExtra

_LONGEST = 200


@contextmanager
def optional(package: str, extra: str, *, distribution: str | None = None) -> Iterator[None]:
    """Import a package of an extra in the body.

    Args:
        package: The name that the body imports, such as ``PIL``.
        extra: The extra of ours that brings it.
        distribution: What users install, such as ``pillow``, where its name differs.

    Raises:
        MissingExtra: when exactly this package is not installed.
        BadInput: when it is installed and its import fails, with the reason.

    Example:
        >>> with optional("absent", "hub"):
        ...     import absent
        Traceback (most recent call last):
        ...
        advpure.MissingExtra: absent is not installed; pip install 'advpure[hub]' brings it
    """
    known = distribution or package
    try:
        yield
    except ModuleNotFoundError as error:
        # None in the list of modules is how Python marks a package that is not to be found.
        if error.name == package or sys.modules.get(package, ...) is None:
            raise MissingExtra(known, extra) from None
        raise _broken(known, error) from error
    except (MissingExtra, BadInput):
        raise
    except Exception as error:  # an import runs the package's own code, which fails as it likes
        raise _broken(known, error) from error


def _broken(package: str, error: BaseException) -> BadInput:
    """Build the line for an installed package whose import fails: its first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if len(reason) > _LONGEST:
        reason = f"{reason[: _LONGEST - 3]}..."
    return BadInput(
        f"package {package}",
        f"is installed but cannot be imported ({reason})",
        "mend or reinstall it",
    )
