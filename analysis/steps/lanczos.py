"""Leading singular triplets of a matrix that is known by its products alone.

Block Golub-Kahan-Lanczos bidiagonalisation: from orthonormal V_1 of b random rows,

    A V_j = U_1..j H,    A^T U_j = V_1..j+1 H^T,

with every new vector orthogonalised twice against all before, so that no copies of converged values
appear. The singular values of H approach those of A from below, outermost first. For a Ritz triplet
(s, u, v), A v = s u, and ||A^T u - s v|| is known without another product; when it is at most
`tolerance` times the largest value for all the wanted ones, or the basis is full, the iteration
ends. The triplets are then multiplied by A and A^T once more: with unit u and v, some singular
value of A lies within

    bound = sqrt((||A v - s u||^2 + ||A^T u - s v||^2) / 2)

of s, rounding of the products included. That it is the one of the same rank is very likely after a
random start, not proved; a value repeated more than b times may be found b times only.

A block that vanishes (A has low rank, or its space is exhausted) is replaced by fresh random rows,
so repeated values and zeros are found too.

Sources: [Golub1981] (block bidiagonalisation); [Parlett1998], theorem 11.7.1 (bound).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.base.errors import BadInput
from advpure.base.kinds import Natural, Share
from advpure.base.validation import validate

Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-14
_ADJOINT = 1e-2
"""Largest relative difference of u^T (A v) and (A^T u)^T v; float32 networks have about 1e-6."""


@dataclass(frozen=True, kw_only=True)
class LanczosSettings:
    """How many singular values, and how well.

    Attributes:
        count: K, the number of leading singular triplets.
        block: b, start vectors; more of them cost little where a compute tile has room.
        tolerance: Residual at which to stop, relative to the largest value.
        basis: Most vectors on either side; each costs a product with A and one with A^T.

    Raises:
        BadInput: for values that make no sense, naming the rule.
    """

    count: Natural = 5
    block: Natural = 2
    tolerance: Share = 1e-3
    basis: Natural = 60

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        if self.basis < self.count + self.block:
            raise BadInput(
                f"a basis of {self.basis} vectors",
                f"is too small for {self.count} values with blocks of {self.block}",
                f"use {self.count + self.block} or more",
            )


class Product(NamedTuple):
    """What the iteration asks for: rows times A^T (``push``, A v) or times A (``pull``, A^T u)."""

    kind: Literal["push", "pull"]
    rows: Floats


class Triplets(NamedTuple):
    """Leading singular triplets.

    Attributes:
        values: Descending, [K].
        left: Unit rows u, [K, d]; those of values 0 are arbitrary.
        right: Unit rows v, [K, d].
        images: A v, [K, d].
        bounds: See the module, [K].
        converged: Whether the residual met the tolerance, [K].
        products: Products with A and as many with A^T, without the K of the last check.
        mismatch: How far A and A^T were from being each other's transpose, relative to the largest
            value.
    """

    values: Floats
    left: Floats
    right: Floats
    images: Floats
    bounds: Floats
    converged: npt.NDArray[np.bool_]
    products: int
    mismatch: float


def lanczos(
    dimensions: int, settings: LanczosSettings, draw: Callable[[int], Floats]
) -> Generator[Product, Floats, Triplets]:
    """Iterate, asking the caller for products, so that many iterations can share batches.

    Args:
        dimensions: d, rows and columns of A.
        settings: How many, and how well.
        draw: Gives the k-th random start vector, [d], k = 0, 1, ...

    Yields:
        Products to compute; send back their rows.

    Returns:
        The triplets, min(K, d) of them.

    Raises:
        BadInput: when A and A^T are not each other's transpose, or a product is not finite.

    Example:
        >>> a = np.diag([3.0, 2.0, 1.0])
        >>> random = np.random.default_rng(0)
        >>> run = lanczos(3, LanczosSettings(count=1), lambda k: random.standard_normal(3))
        >>> multiply(run, a).values.round(6).tolist()
        [3.0]
    """
    wanted, limit = min(settings.count, dimensions), min(settings.basis, dimensions)
    right, left = np.empty((0, dimensions)), np.empty((0, dimensions))
    h = np.empty((0, 0))
    fresh = _Fresh(draw)
    block = _extend(np.empty((0, dimensions)), right, fresh, settings.block).new
    mismatch = 0.0
    while True:
        right = np.concatenate([right, block])
        pushed = _checked((yield Product("push", block)), block)
        grown = _extend(pushed, left, fresh, len(block))
        left = np.concatenate([left, grown.new])
        h = _grow(h, grown.coefficients.T)
        pulled = _checked((yield Product("pull", grown.new)), grown.new)
        room = min(settings.block, limit - len(right))
        after = _extend(pulled, right, fresh, max(room, 0))
        rest = pulled - after.coefficients[:, : len(right)] @ right
        largest, ritz_left, singular, ritz_right = _ritz(h)
        own = h[-len(grown.new) :]
        gap = np.abs(after.coefficients[:, : len(right)] - own).max(initial=0.0)
        mismatch = max(mismatch, float(gap) / largest if largest > 0.0 else 0.0)
        residuals = np.linalg.norm(ritz_left[-len(rest) :].T @ rest, axis=1)[:wanted]
        done = len(singular) >= wanted and (residuals <= settings.tolerance * largest).all()
        if done or room <= 0:
            break
        block = after.new
    if mismatch > _ADJOINT:
        raise BadInput(
            f"a purifier whose derivatives forwards and backwards differ by {mismatch:.2g}",
            "has no singular values that could be trusted",
            "run `advpure check-grad` on it",
        )
    values, u, v = singular[:wanted], ritz_left[:, :wanted].T @ left, ritz_right[:wanted] @ right
    images = _checked((yield Product("push", v)), v)
    backs = _checked((yield Product("pull", u)), u)
    errors = [np.square(a - values[:, None] * b).sum(1) for a, b in ((images, u), (backs, v))]
    return Triplets(
        values,
        u,
        v,
        images,
        np.sqrt((errors[0] + errors[1]) / 2.0),
        residuals <= settings.tolerance * largest,
        len(right),
        mismatch,
    )


def multiply(run: Generator[Product, Floats, Triplets], matrix: Floats) -> Triplets:
    """Run an iteration on an explicit matrix."""
    product = next(run)
    while True:
        try:
            a = matrix.T if product.kind == "push" else matrix
            product = run.send(product.rows @ a)
        except StopIteration as end:
            result: Triplets = end.value
            return result


class _Fresh:
    """Random vectors in order."""

    def __init__(self, draw: Callable[[int], Floats]) -> None:
        self.draw, self.number = draw, 0

    def __call__(self) -> Floats:
        self.number += 1
        return np.asarray(self.draw(self.number - 1), dtype=np.float64)


class _Extension(NamedTuple):
    """Rows as coefficients of a basis and of `new` orthonormal rows."""

    coefficients: Floats
    new: Floats


def _extend(rows: Floats, basis: Floats, fresh: _Fresh, count: int) -> _Extension:
    """Find `count` new orthonormal rows, as far as the space has room, that `rows` lead to."""
    size = basis.shape[1]
    whole, added = basis.copy(), min(count, size - len(basis))
    coefficients = np.zeros((len(rows), len(basis) + added))
    for k in range(max(len(rows), added)):
        rest, length = np.zeros(size), 0.0
        if k < len(rows):
            coefficients[k, : len(whole)], rest = _project(rows[k], whole)
            length = float(np.linalg.norm(rest))
        if len(whole) == len(basis) + added:
            continue
        if k < len(rows) and length > _ROUNDING * float(np.linalg.norm(rows[k])):
            coefficients[k, len(whole)] = length
        else:
            rest = _outside(whole, fresh)
        whole = np.concatenate([whole, rest[None] / np.linalg.norm(rest)])
    return _Extension(coefficients, whole[len(basis) :])


def _outside(basis: Floats, fresh: _Fresh) -> Floats:
    """Return a vector orthogonal to a basis that does not span the space."""
    row = fresh()
    rest = _project(row, basis)[1]
    if np.linalg.norm(rest) > 1e-8 * np.linalg.norm(row):
        return rest
    # The random vector lies in the span, as signs may in few dimensions: take the axis that
    # sticks out most.
    axis = np.zeros(basis.shape[1])
    axis[np.square(basis).sum(axis=0).argmin()] = 1.0
    return _project(axis, basis)[1]


def _project(row: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Return the coefficients of a row and what is left of it; twice is enough."""
    parts, rest = np.zeros(len(basis)), row
    for _ in range(2):
        more = basis @ rest
        parts, rest = parts + more, rest - more @ basis
    return parts, rest


def _grow(h: Floats, columns: Floats) -> Floats:
    """Add the columns of a new block, [rows, b], to H."""
    grown = np.zeros((len(columns), h.shape[1] + columns.shape[1]))
    grown[: h.shape[0], : h.shape[1]] = h
    grown[:, h.shape[1] :] = columns
    return grown


def _ritz(h: Floats) -> tuple[float, Floats, Floats, Floats]:
    left, values, right = np.linalg.svd(h)
    return float(values[0]), left, values, right


def _checked(rows: Floats, like: Floats) -> Floats:
    product = np.asarray(rows, dtype=np.float64)
    if product.shape != like.shape or not np.isfinite(product).all():
        raise BadInput("a purifier's derivative", "is not finite", "check its settings and dtype")
    return product
