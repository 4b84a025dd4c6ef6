"""One fixed compute tile, so that a row's result never depends on its neighbours.

Kernels choose their algorithm by the shape of the batch, and round differently for different
shapes; a sign step turns such a last bit into another attack. So every rounding computation on rows
sees batches of one shape, layout and alignment: split into tiles, the last one padded.

What that gives, for a given machine, number of threads and package versions: a row's bits never
depend on how many rows there are or on what the neighbours hold. They do not depend on the slot
within the tile either when the tile is a power of two and every layer's row holds a multiple of 32
numbers, as for images whose sides are multiples of 8. Otherwise a matrix product or a vectorised
function treats the last rows or numbers of a batch by another kernel (seen with tiles of 7, and
with 9 x 9 images), and only a tile of 1 gives the guarantee.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from advpure.base.errors import BadInput, ModelFault
from advpure.base.validation import as_integer, shown

_ALIGNMENT = 64  # bytes, what torch gives to new tensors on the CPU

T = TypeVar("T", bound=Tensor | tuple[Tensor, ...])


_MOST_ROWS = 2**20
"""The largest tile or batch that is taken for one."""


def check_tile(tile: int | None) -> int | None:
    """Return a tile as an int, None for no tiling.

    Raises:
        BadInput: for what is no whole number, holds no row, or fits in no memory.
    """
    return None if tile is None else _rows(tile, "tile", "use 1 or more, or None for no tiling")


def check_rows(batch_size: int) -> int:
    """Return a batch size as an int.

    Raises:
        BadInput: as `check_tile`.
    """
    return _rows(batch_size, "batch size", "use 1 or more")


def _rows(value: object, what: str, fix: str) -> int:
    rows = as_integer(value)
    if rows is None:
        raise BadInput(f"{what} {shown(value)}", "is not a whole number", fix)
    if rows < 1:
        raise BadInput(f"{what} {shown(rows)}", "holds no image", fix)
    if rows > _MOST_ROWS:
        raise BadInput(f"{what} {shown(rows)}", f"is above {_MOST_ROWS} rows at once", "use less")
    return rows


def check_batch_size(batch_size: int | None) -> int | None:
    """Return how many images to hold in memory at once, None for a choice of ours.

    Raises:
        BadInput: as `check_tile`.
    """
    return None if batch_size is None else check_rows(batch_size)


def tiled(function: Callable[..., T], tile: int | None) -> Callable[..., T]:
    """Wrap a row-wise function so that it always sees exactly `tile` rows.

    Args:
        function: Maps tensors that share their first axis [B, ...] to a tensor, tuple or NamedTuple
            of tensors with that first axis; its rows are independent.
        tile: Rows per call; None calls the function as it is.

    Returns:
        A function of the same tensors (None is passed through) and results. Padding repeats the
        first row of a tile, detached, and is dropped from the results, so gradients are exact.

    Example:
        >>> tiled(lambda x: x + len(x), 4)(torch.zeros(6)).tolist()
        [4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    """
    tile = check_tile(tile)
    if tile is None:
        return function

    def run(*tensors: Tensor | None) -> T:
        call = unspoilt(function) if _WATCHED.get() else function
        tiles = list(split_tiles(*tensors, tile=tile))
        if len(tiles) == 1 and tiles[0].rows == tile:
            return call(*tiles[0].tensors)
        parts: list[T] = [_unpad(call(*each.tensors), each.rows) for each in tiles]
        result: T = parts[0] if len(parts) == 1 else _join(parts)
        return result

    return run


_WATCHED: ContextVar[bool] = ContextVar("watched", default=False)


@contextmanager
def watched_tiles() -> Iterator[None]:
    """Let no tile of the body be changed in place; see `unspoilt`."""
    token = _WATCHED.set(True)
    try:
        yield
    finally:
        _WATCHED.reset(token)


def unspoilt(function: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function of tensors so that it is refused when it changes one of them in place.

    Raises:
        BadInput: by the wrapped function, also where a change leaves the values, or leaves no trace
            in the version of the tensor, as through NumPy.
    """

    def call(*tensors: Tensor | None) -> T:
        before = [(each, each._version, each.clone()) for each in tensors if each is not None]
        result = function(*tensors)
        for each, version, copy in before:
            if each._version != version or not same(each, copy):
                raise ModelFault(
                    "a model that changes its input in place",
                    "spoils the images that are measured",
                    "let it work on a copy (x = x.clone())",
                    "in-place",
                )
        return result

    return call


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape hold the same values, NaN equal to NaN."""
    return bool(torch.equal(a, b)) or bool(((a == b) | ((a != a) & (b != b))).all())


class Tile(NamedTuple):
    """A batch's tensors cut and padded to one tile, and how many of its rows are real."""

    tensors: tuple[Tensor | None, ...]
    rows: int


def split_tiles(*tensors: Tensor | None, tile: int | None) -> Iterator[Tile]:
    """Cut tensors that share their first axis into padded tiles.

    Args:
        tensors: [B, ...] each; None is passed through.
        tile: Rows per tile; None yields the tensors as they are.

    Yields:
        The tiles, at least one even where B = 0.
    """
    rows = next(t.shape[0] for t in tensors if t is not None)
    if tile is None:
        yield Tile(tensors, rows)
        return
    for start in range(0, max(rows, 1), tile):
        padded = tuple(_pad(t, start, tile) for t in tensors)
        yield Tile(padded, min(tile, rows - start))


def _pad(tensor: Tensor | None, start: int, tile: int) -> Tensor | None:
    if tensor is None:
        return None
    chunk = tensor[start : start + tile]
    missing = tile - chunk.shape[0]
    if missing:
        first = chunk[:1] if chunk.shape[0] else tensor.new_zeros((1, *tensor.shape[1:]))
        chunk = torch.cat([chunk, first.detach().expand(missing, *chunk.shape[1:])])
    return _canonical(chunk)


def _canonical(tensor: Tensor) -> Tensor:
    """Give a tensor the strides and the alignment of a new one.

    Strides of an axis of length 1 are free, so a grey image can pass for channels-last, for which
    kernels round differently; flattening settles them.
    """
    flat = tensor.reshape(-1)
    if flat.data_ptr() % _ALIGNMENT:
        flat = flat.clone()
    return flat.view(tensor.shape)


def _rebuild(like: Any, parts: list[Tensor]) -> Any:
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def _unpad(result: Any, rows: int) -> Any:
    if isinstance(result, Tensor):
        return result[:rows]
    return _rebuild(result, [part[:rows] for part in result])


def _join(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return _rebuild(parts[0], [torch.cat(column) for column in zip(*parts, strict=True)])
