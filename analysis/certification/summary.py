"""What is shown of certificates, of a run or of any files: values by radius, and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from advpure.analysis.certification.accuracy import (
    RHO,
    CertifiedImages,
    abstention,
    any_of,
    average_certified_radius,
    best_over,
    certified_accuracy,
    certified_at,
    certified_by_any,
    most_wrong,
    own_radii,
    truly_certified,
)
from advpure.analysis.certification.radius import ABSTAIN, round_down
from advpure.base.display import Table, percent_interval
from advpure.statistics.estimates import Estimate

Curves = Sequence[CertifiedImages]


def accuracy(images: CertifiedImages, radius: float, **more: Any) -> Estimate:
    """Return the certified accuracy at a radius, with the images behind it."""
    return Estimate.of(
        certified_accuracy(images, radius),
        lambda: _by_image(images.ids, certified_at(images, radius)),
        anytime=images.standing is not None,
        **more,
    )


def accuracies(curves: Curves, radii: Sequence[float]) -> dict[str, Any]:
    """Return certified accuracies per curve and radius, and the best over curves.

    Args:
        curves: Certificates; of several, the best is an oracle.
        radii: [0, 1] units.

    Returns:
        `certified_accuracy` (radius as text to value, best over curves), `best` and `rows` (one
        entry per curve and radius). In both, `truly_certified_at_least` is the bound over images
        that holds with probability 1 - `bound_fails`, for all radii of a curve at once and after
        the choice of the best; None where alpha is unknown. `clean` is the accuracy at radius 0 of
        the curve that was chosen, abstentions as errors: what published tables print beside the
        certified accuracy.
    """
    named, choices = {curve.name: curve for curve in curves}, max(len(curves), 1)
    best = [
        (each.radius, named[each.name]) for each in (best_over(curves, radii) if curves else ())
    ]
    return {
        "certified_accuracy": {
            _key(radius): accuracy(curve, radius, style="alone") for radius, curve in best
        },
        "oracle": len(curves) > 1,
        "bound_fails": RHO,
        "best": [
            _entry(curve, radius, choices, clean=accuracy(curve, 0.0)) for radius, curve in best
        ],
        "rows": [_entry(curve, radius, 1) for curve in curves for radius in radii],
        **({"largest_average_radius": max(map(average, curves), key=_value)} if curves else {}),
    }


def _entry(curve: CertifiedImages, radius: float, choices: int, **more: Any) -> Estimate:
    about = {
        "name": curve.name,
        "sigma": curve.sigma,
        "radius": radius,
        **more,
        "truly_certified_at_least": truly_certified(curve, radius, choices=choices),
    }
    return accuracy(curve, radius, extra=about)


def average(images: CertifiedImages) -> Estimate:
    """Return the average certified radius, with the radius of every image."""
    mean = Estimate.of(
        average_certified_radius(images), lambda: _by_image(images.ids, own_radii(images))
    )
    if images.standing is not None:  # its interval is for a number of images chosen before
        mean = replace(mean, interval=None)
    return mean


def _value(estimate: Estimate) -> float:
    return estimate.value


def _key(radius: float) -> str:
    """Write a radius as short as it stays exact."""
    short = f"{radius:g}"
    return short if float(short) == radius else repr(radius)


def of_curve(images: CertifiedImages) -> dict[str, Any]:
    """Return what can be said of one set of certificates beside its accuracies."""
    return {
        "name": images.name,
        "sigma": images.sigma,
        "alpha": images.alpha,
        "n": len(images),
        "abstained": Estimate.of(
            abstention(images),
            lambda: _by_image(images.ids, images.predictions == ABSTAIN),
            anytime=images.standing is not None,
        ),
        "average_certified_radius": average(images),
        "largest_radius": float(images.radii.max()),
    }


def at_any_sigma(joint: Curves, radii: Sequence[float]) -> list[Estimate] | None:
    """Return the share that some of joint certificates certifies; None for no certificates."""
    if not joint:
        return None
    return [_by_any(joint, radius) for radius in radii]


def _by_any(joint: Curves, radius: float) -> Estimate:
    return Estimate.of(
        any_of(joint, radius),
        lambda: _by_image(*certified_by_any(joint, radius)),
        extra={"radius": radius},
    )


def _by_image(ids: NDArray[Any], values: NDArray[Any]) -> dict[int, float]:
    return dict(zip(ids.tolist(), map(float, values), strict=True))


def in_words(curves: Curves, radii: Sequence[float]) -> str:
    """Return the certified accuracy at the smallest radius above 0, the best of several curves."""
    if not curves:
        return "no image is decided yet"
    radius = next((radius for radius in radii if radius > 0.0), radii[0])
    (best,) = best_over(curves, [radius])
    choice = f", the best of {len(curves)} ({best.name})" if len(curves) > 1 else ""
    return (
        f"certified accuracy {percent_interval(best.rate)} % at radius {radius:g} on {best.rate.n} "
        f"images{choice}"
    )


def table(
    curves: Curves,
    radii: Sequence[float],
    *,
    used: Mapping[str, float] | None = None,
    joint: Mapping[str, Curves] | None = None,
) -> tuple[Table, ...]:
    """Return a table with one column per set of certificates, and the best of them.

    Args:
        curves: Certificates; of none, there is no table.
        radii: [0, 1] units.
        used: Noise samples per image, by name, where known.
        joint: Name of a run and its certificates, where those of all noise levels hold at once.
    """
    if not curves:
        return ()
    columns = [_column(curve, radii) for curve in curves]
    heads = ["certified % at radius", *(curve.name for curve in curves)]
    names = [*(f"{radius:g}" for radius in radii), "abstained", "average radius", "images"]
    wrong = [most_wrong(curve) for curve in curves]
    if any(count is not None for count in wrong):
        names.append("wrong by chance, at most (95 %)")
        for column, count in zip(columns, wrong, strict=True):
            column.append("unknown" if count is None else str(count))
    if used:
        names.append("samples an image")
        for column, curve in zip(columns, curves, strict=True):
            column.append(f"{used[curve.name]:,.0f}")
    if len(curves) > 1:
        heads.append("best (oracle)")
        columns.append([percent_interval(each.rate) for each in best_over(curves, radii)])
    for name, group in (joint or {}).items():
        heads.append(f"{name}, any sigma (joint)")
        columns.append([percent_interval(any_of(group, radius)) for radius in radii])
    filled = [[*column, *[""] * (len(names) - len(column))] for column in columns]
    return (Table(heads, [list(row) for row in zip(names, *filled, strict=True)]),)


def _column(curve: CertifiedImages, radii: Sequence[float]) -> list[str]:
    return [
        *(percent_interval(certified_accuracy(curve, radius)) for radius in radii),
        percent_interval(abstention(curve)),
        round_down(average_certified_radius(curve).value, 3),
        str(len(curve)),
    ]
