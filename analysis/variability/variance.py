"""How much of a purifier's variability comes from its input, and how much from its randomness.

One image gives a table of outputs y[k, s] = f_s(x_k): K perturbed inputs x_k, each under the same S
configurations s. As a two-way layout with random effects and one case a cell,

    y[k, s] = mu + a[k] + b[s] + c[k, s],    variances A, B, C

and the law of total variance ([Wei2025], equation 20) reads, pixel by pixel,

    total = E_s[Var_x f_s(x)] + Var_s[E_x f_s(x)] = (A + C) + B = input + internal,
    SNR   = input / internal                                            ([Wei2025], equation 7).

The plain estimates put averages over the table for both E and Var (division by K and by S), so that
they add up in every table. They are biased:

    E[input]    = (1 - 1/K) (A + C),
    E[internal] = (1 - 1/S) (B + C/K),

the input variance is low by 1/K of itself; the internal variance is low by 1/S of itself and high
by the part of the interaction that a mean over K inputs leaves. The unbiased ones solve the
expected mean squares of the layout ([Searle1992], chapter 4), with the sums of
squares SS of rows (inputs), columns (configurations) and the rest:

    E[SS_rows / (K - 1)] = C + S A,  E[SS_columns / (S - 1)] = C + K B,
    E[SS_rest / ((K - 1) (S - 1))] = C,

which gives input = SS_within / (S (K - 1)) with SS_within = SS_rows + SS_rest. An unbiased estimate
of a variance can be negative where the variance is small; it is left so. A ratio of unbiased
estimates is not unbiased itself: with d equal and independent pixels, SNR is high by about
2 / (d (S - 1)) of itself, and so more where few directions carry the internal variance.
"""

from typing import Annotated, NamedTuple

from annotated_types import Ge

from advpure.base.errors import BadInput
from advpure.base.validation import instance, whole

Several = Annotated[int, Ge(2)]
"""How many a variance needs."""


class SumsOfSquares(NamedTuple):
    """The sums of squares of one table, over all its cells and pixels.

    Attributes:
        perturbations: K, inputs.
        configurations: S.
        pixels: d, numbers in an output.
        rows: Of the K row means about the grand mean, once for each cell: S sum_k |.|^2.
        columns: Of the S column means about the grand mean, once for each cell: K sum_s |.|^2.
        within: Of the cells about the mean of their column, that is their configuration.
    """

    perturbations: int
    configurations: int
    pixels: int
    rows: float
    columns: float
    within: float


class Components(NamedTuple):
    """Variances, mean over pixels, squared [0, 1] units.

    Attributes:
        total: input + internal.
        input: E_s[Var_x f]: the spread over inputs at a fixed configuration.
        internal: Var_s[E_x f]: the spread over configurations of the mean over inputs.
        interaction: The part of `input` that is another in every configuration.
        snr: input / internal; None where internal is not above 0, so that there is no ratio.
    """

    total: float
    input: float
    internal: float
    interaction: float
    snr: float | None


def plain_components(sums: SumsOfSquares) -> Components:
    """Estimate the components as the law of total variance within the table, as [Wei2025] does.

    Example:
        >>> sums = SumsOfSquares(2, 2, 1, rows=1.0, columns=16.0, within=1.0)
        >>> plain_components(sums)
        Components(total=4.25, input=0.25, internal=4.0, interaction=0.0, snr=0.0625)
    """
    instance(sums, SumsOfSquares, "sums", "pass SumsOfSquares(...)")
    cells = sums.perturbations * sums.configurations * sums.pixels
    return _components(sums.within / cells, sums.columns / cells, (sums.within - sums.rows) / cells)


def unbiased_components(sums: SumsOfSquares) -> Components:
    """Estimate the components without bias, see the module.

    Args:
        sums: Of a table with at least two inputs and two configurations.

    Example:
        >>> sums = SumsOfSquares(2, 2, 1, rows=1.0, columns=16.0, within=1.0)
        >>> unbiased_components(sums)
        Components(total=8.5, input=0.5, internal=8.0, interaction=0.0, snr=0.0625)
    """
    instance(sums, SumsOfSquares, "sums", "pass SumsOfSquares(...)")
    k, s, d = sums.perturbations, sums.configurations, sums.pixels
    if min(k, s) < 2:
        raise BadInput(f"a table of {k} by {s}", "has no unbiased variance", "give 2 of each")
    rest = (sums.within - sums.rows) / ((k - 1) * (s - 1) * d)
    return _components(
        sums.within / ((k - 1) * s * d), (sums.columns / ((s - 1) * d) - rest) / k, rest
    )


def expected_plain(true: Components, perturbations: Several, configurations: Several) -> Components:
    """Return what the plain estimates average to when the components are these.

    Its `snr` is the ratio of the two expectations, which the plain ratio has about.

    Example:
        >>> true = Components(total=1.25, input=0.25, internal=1.0, interaction=0.0, snr=0.25)
        >>> expected_plain(true, 50, 50).internal
        0.98
    """
    instance(true, Components, "components", "pass Components(...)")
    k, s = whole(perturbations, "perturbations", 2), whole(configurations, "configurations", 2)
    return _components(
        (1 - 1 / k) * true.input,
        (1 - 1 / s) * (true.internal + true.interaction / k),
        (1 - 1 / k) * (1 - 1 / s) * true.interaction,
    )


def _components(inside: float, internal: float, interaction: float) -> Components:
    snr = inside / internal if internal > 0.0 else None
    return Components(inside + internal, inside, internal, interaction, snr)
