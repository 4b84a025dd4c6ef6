"""The attack study as one call, for models that are objects: `advpure.evaluate`."""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from torch import Tensor

from advpure.analysis.robustness.study import Robustness, RobustnessReport
from advpure.analysis.study import Progress, silent
from advpure.base.errors import BadInput
from advpure.base.flags import Keys
from advpure.base.validation import shown
from advpure.data import Images
from advpure.options import check_names

_GIVEN = ("defense", "classifier", "dataset")


def evaluate(
    purifier: Any,
    classifier: Any,
    images: Any,
    labels: Any = None,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> RobustnessReport:
    """Attack a purifier in front of a classifier, and report how many images it keeps right.

    The strongest attack that is there runs by default, and clean images and uniform noise beside
    it; `advpure attack` is the same on the command line.

    Args:
        purifier: A name, ``file.py:attribute``, or an object: a module or function from images in
            [0, 1] to images, a chain, or a purifier of ours. None or ``none`` for no purifier. Also
            a whole defense, from images to logits; then the classifier is None.
        classifier: A name, a file, ``file.py:attribute``, or a module or function from images in
            [0, 1] to logits. None for that of a named data set.
        images: Images [N, C, H, W] or [N, H, W, C], an array or a tensor, uint8 or float in [0, 1];
            `Images`, whose ids are kept; or a file, a folder, or the name of a data set, which
            bring their labels.
        labels: True classes [N], an array, a tensor or a list; None where the images bring them.
        out: Folder of the records. By default ``runs/attack-HASH``, named after all settings and
            contents, where the command line puts it too: the same call again reports from there.
        batch_size: Images in memory at once; a matter of memory only.
        progress: Called with the number of finished images.
        settings: Every setting of `advpure.analysis.robustness.study.Robustness`, such as
            ``eps="8/255"``, ``norm="l2"``, ``randomness="fixed"``, ``attack="apgd"`` or ``n=50``;
            and the options of an attack that are flags of `advpure attack`, such as ``steps=40``.

    Returns:
        The report, computed from the records: ``.table()``, ``.to_pandas()``, ``.report(path)``,
        ``.to_json()``, and its accuracies in ``.stages``.

    Raises:
        BadInput: for anything that cannot be used, in one line.

    Example:
        >>> import tempfile
        >>> from advpure import load_classifier, load_images
        >>> images, labels, _ = load_images("digits", n=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = evaluate(
        ...         lambda x: x / 2 + 0.25, load_classifier("digits"), images, labels,
        ...         eps=0.3, budget=100, out=folder + "/run",
        ...     )
        >>> result.n, result.headline("adversarial").value
        (4, 0.0)
    """
    given = _with_options(settings)
    study = Robustness(
        defense="none" if purifier is None else purifier,
        classifier=classifier,
        dataset=_source(images, labels),
        **given,
    )
    return study.run(out=out, batch_size=batch_size, progress=progress)


def _with_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the study; flags of the attack's options become its options."""
    hints = get_type_hints(Robustness, include_extras=True)
    flags = {
        flag: (each.name, key)
        for each in dataclasses.fields(Robustness)
        for mark in getattr(hints[each.name], "__metadata__", ())
        if isinstance(mark, Keys)
        for flag, key in mark.flags.items()
    }
    fields = {name: value for name, value in settings.items() if name not in flags}
    check_names(Robustness, fields, "evaluate")
    for name in fields.keys() & set(_GIVEN):
        rule = "is given by position"
        raise BadInput(name, rule, "leave it out; evaluate(purifier, classifier, images, labels)")
    for flag in settings.keys() & flags.keys():
        name, key = flags[flag]
        own = {} if fields.get(name) is None else fields[name]
        if not isinstance(own, Mapping):
            raise BadInput(f"{name} {shown(own)}", "is no mapping", "write a dictionary of options")
        if key in own:
            raise BadInput(f"option {key}", "is given a second time", f"keep {flag} alone")
        fields[name] = {**own, key: settings[flag]}
    return fields


def _source(images: Any, labels: Any) -> Any:
    """Return what stands in the place of a data set."""
    if isinstance(images, str | Path):
        if labels is None:
            return images
        images = _stored(Path(images))
    if labels is None and isinstance(images, Tensor | np.ndarray):
        raise BadInput("labels", "are missing", "pass the true class of every image")
    if labels is None:
        return images
    if isinstance(images, Images):
        rule = "brings labels of its own"
        raise BadInput("a set of images with labels", rule, "leave labels out, or pass .images")
    if isinstance(labels, str | Path):
        labels = _stored(Path(labels))
    if isinstance(labels, list | tuple):
        labels = np.asarray(labels)
    return images, labels


def _stored(path: Path) -> Any:
    """Read a plain array, where images and labels are files of their own."""
    if path.suffix.lower() != ".npy" or not path.is_file():
        fix = "name a .npy file, or leave labels out where the images bring them"
        raise BadInput(str(path), "is no .npy file beside labels", fix)
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise BadInput(str(path), "is damaged or no plain array", "store it with np.save") from None


def _signature() -> inspect.Signature:
    """Return the signature with every setting of the study, which are declared there alone."""
    own = inspect.signature(evaluate)
    fixed = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    more = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default={} if each.default is dataclasses.MISSING else each.default,
        )
        for each in dataclasses.fields(Robustness)
        if each.name not in _GIVEN
    ]
    last = [each for each in own.parameters.values() if each.kind is each.VAR_KEYWORD]
    return own.replace(parameters=[*fixed, *more, *last])


evaluate.__signature__ = _signature()  # type: ignore[attr-defined]
