"""Let the site's parser of docstrings take a section `Example:` for examples, not for prose."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Name the section as the parser knows it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
