"""Randomness as a value: noise is a pure function of (seed, sample id, phase, step, draw).

Nothing here depends on a global generator, on the order of calls or on a sample's place in its
batch, so a purifier gives one answer per (image, configuration) whatever the batch size.

Two ways to turn the key into a stream:

* ``hash`` seeds torch's CPU generator with hash(s, i, 2t) for a forward step and
  hash(s, i, 2t + 1) for a reverse step, where hash(s, i, t) is
  (83492791 s XOR 73856093 i XOR 19349663 t) mod 2**32 and i the data-set index ([Wei2025],
  equations 23-24, at its batch size of one). About as many keys collide as random 32-bit numbers
  would.
* ``counter`` puts (step, phase, draw, sample id) into the counter of the Philox generator and the
  seed into its key, so two different keys never share a block of random bits.
"""

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from advpure.base.budget import ARRAY, check_repeats
from advpure.base.errors import BadInput
from advpure.base.units import check_plain
from advpure.base.validation import Range, as_integer, instance, listed, number, shown, whole

Phase = Literal["forward", "reverse"]
Scheme = Literal["hash", "counter"]
Scope = Literal["sample", "shared", "fresh"]
Ids = Tensor | Sequence[int]

_MASK = 2**32 - 1
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_SEED_FACTOR, _ID_FACTOR, _TIME_FACTOR = 83492791, 73856093, 19349663
_PHASES = get_args(Phase)
_STREAMS = {"forward": 0, "reverse": 1, "uniform": 2, "bits": 3}


def hash_key(seed: int, sample: int, time: int) -> int:
    """Mix a base seed, a sample id and a doubled step into 32 bits ([Wei2025], equation 24).

    The mask applies to the whole exclusive or; masking only the last product would leave keys
    above 2**32.

    Example:
        >>> hash_key(0, 0, 0), hash_key(1, 2, 3)
        (0, 255973072)
    """
    return (_SEED_FACTOR * seed ^ _ID_FACTOR * sample ^ _TIME_FACTOR * time) & _MASK


def counter_key(
    xi: "RandomnessConfig", stream: str, step: int, draw: int, sample: int
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return Philox's key and its counter before the first block, as 64-bit words.

    The map is injective for a given path; paths are told apart by 64 bits of SHA-256. The first
    counter word counts the blocks of one stream, so streams meet after 2**64 blocks at the
    earliest.
    """
    path = _digest(xi.path, 64) if xi.path else 0
    return (xi.seed, path), (0, draw, 4 * step + _STREAMS[stream], sample)


@dataclass(frozen=True)
class RandomnessConfig:
    """A randomness configuration xi: all the noise that a purifier will ever draw.

    Args:
        seed: Base seed, 0 <= seed < 2**32 (``hash``) or 2**64 (``counter``).
        scheme: How keys become streams, see the module.
        scope: ``sample``: every sample id has its own noise. ``shared``: all samples share one
            noise, for attack libraries that reorder their batch. ``fresh``: every call of a
            defense draws anew, reproducibly: call n uses ``fold("call", n)``.
        path: What ``fold`` appended; leave it empty.

    Raises:
        BadInput: when the seed does not fit or a name is not known.

    Example:
        >>> xi = RandomnessConfig(0)
        >>> xi.normal([3, 5], "reverse", 7, (2,)).shape
        torch.Size([2, 2])
    """

    seed: int
    scheme: Scheme = "hash"
    scope: Scope = "sample"
    path: tuple[str | int, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check the seed and the names."""
        if not isinstance(self.scheme, str) or self.scheme not in get_args(Scheme):
            raise BadInput(f"scheme {shown(self.scheme)}", "is not known", "use hash or counter")
        if not isinstance(self.scope, str) or self.scope not in get_args(Scope):
            fix = "use sample, shared or fresh"
            raise BadInput(f"scope {shown(self.scope)}", "is not known", fix)
        if self.path != () and not _is_path(self.path):
            instance(self.path, (tuple, list), "path", "leave it empty, or use fold")
            object.__setattr__(self, "path", tuple(_purpose(name) for name in self.path))
        bits = 32 if self.scheme == "hash" else 64
        if type(self.seed) is not int:  # folds are many, and their seeds are plain
            seed = as_integer(self.seed)
            if seed is None:
                raise BadInput(
                    f"seed {shown(self.seed)}", "is not a whole number", f"use 0 .. 2**{bits} - 1"
                )
            object.__setattr__(self, "seed", seed)
        if not 0 <= self.seed < 2**bits:
            raise BadInput(
                f"seed {shown(self.seed)}",
                f"does not fit the {self.scheme} scheme's {bits} bits",
                f"use 0 .. 2**{bits} - 1",
            )

    def fold(self, *names: str | int) -> "RandomnessConfig":
        """Derive an independent configuration, the same for the same names.

        Attack draws, decision draws and report draws come from different folds, so they never
        meet.

        Args:
            names: Strings and whole numbers that name the purpose, such as ``"attack", k``.

        Returns:
            A configuration whose streams are those of another seed (``hash``) or another Philox
            key (``counter``), both derived by SHA-256.
        """
        if not names:
            raise BadInput("fold()", "names no purpose", 'write for example fold("attack", 0)')
        plain = tuple(_purpose(name) for name in names)
        return replace(self, path=self.path + plain)

    def normal(
        self,
        ids: Ids,
        phase: Phase,
        step: int,
        shape: Sequence[int],
        draw: int = 0,
        *,
        cached: bool = True,
    ) -> Tensor:
        """Draw standard normal noise.

        Args:
            ids: Data-set indices of the rows, [B].
            phase: ``forward`` or ``reverse``.
            step: The time step t, 0 <= t < 2**31.
            shape: Shape of one sample's noise.
            draw: Number of an independent repetition.
            cached: Whether to keep the rows for another call; a matter of speed alone.

        Returns:
            [B, *shape], float32, on the CPU: the same on every device after moving.
        """
        if not isinstance(phase, str) or phase not in _PHASES:
            raise BadInput(f"phase {shown(phase)}", "is not known", "use forward or reverse")
        return self._rows(ids, phase, step, shape, draw, cached)

    def normal_into(self, out: Tensor, sample: int, phase: Phase, step: int, draw: int = 0) -> None:
        """Draw the standard normal noise of one sample into memory that is there.

        Args:
            out: Takes the numbers of `normal([sample], ...)[0]`; contiguous float32 on the CPU.
            sample: Data-set index.
            phase: ``forward`` or ``reverse``.
            step: The time step.
            draw: Number of an independent repetition.
        """
        if self.scope != "sample":
            out.copy_(self.normal([sample], phase, step, out.shape, draw, cached=False)[0])
        elif self.scheme == "hash":
            out.normal_(generator=self._hashed(phase, step, draw, sample))
        else:
            self._generator(phase, step, draw, sample).standard_normal(
                out=out.numpy(), dtype=np.float32
            )

    def uniform(self, ids: Ids, step: int, shape: Sequence[int], draw: int = 0) -> Tensor:
        """Draw noise uniform in [0, 1): [B, *shape], float32, on the CPU."""
        return self._rows(ids, "uniform", step, shape, draw)

    def bits(
        self, sample: int, step: int, shape: Sequence[int], draw: int = 0
    ) -> npt.NDArray[np.int64]:
        """Draw whole numbers uniform in [0, 2**63) for one sample: 63 independent bits each.

        Args:
            sample: Data-set index.
            step: The time step.
            shape: Shape of the numbers.
            draw: Number of an independent repetition.

        Example:
            >>> RandomnessConfig(0, "counter").bits(3, 0, (2,)).dtype
            dtype('int64')
        """
        sizes = _sides(shape)
        check_repeats(math.prod(sizes), "random numbers", ARRAY // 8)
        if self.scope == "shared":
            sample = 0
        if self.scheme == "hash":
            generator = self._hashed("bits", step, draw, sample)
            drawn = torch.empty(sizes, dtype=torch.int64, device="cpu")
            return drawn.random_(generator=generator).numpy()
        generator_ = self._generator("bits", step, draw, sample)
        return generator_.integers(0, 2**63, size=sizes, dtype=np.int64)

    def _rows(
        self, ids: Ids, stream: str, step: int, shape: Sequence[int], draw: int, cached: bool = True
    ) -> Tensor:
        if self.scope == "fresh":
            raise BadInput(
                "a fresh randomness configuration",
                "has no noise of its own",
                'let a defense use it, or name a call with fold("call", n) and scope="sample"',
            )
        samples = check_ids(ids)
        if type(step) is not int or type(draw) is not int:
            step, draw = whole(step, "step"), whole(draw, "draw")
        shape = _sides(shape)
        check_repeats(len(samples) * math.prod(shape), "numbers of noise", ARRAY // 4)
        if not 0 <= step < 2**31 or not 0 <= draw < 2**32:
            raise BadInput(f"step {step}, draw {draw}", "is out of range", "count from 0")
        if self.scope == "shared":
            samples = [0] * len(samples)
        if not cached:
            drawn = [self._draw(stream, step, shape, draw, i) for i in samples]
            return drawn[0][None] if len(drawn) == 1 else _stacked(drawn, shape)
        context = (self, stream, step, shape, draw)
        return _CACHE.rows(context, samples)

    def _draw(self, stream: str, step: int, shape: tuple[int, ...], draw: int, i: int) -> Tensor:
        if self.scheme == "hash":
            make = torch.rand if stream == "uniform" else torch.randn
            seeded = self._hashed(stream, step, draw, i)
            return make(shape, generator=seeded, dtype=torch.float32, device="cpu")
        generator = self._generator(stream, step, draw, i)
        if stream == "uniform":
            return torch.from_numpy(generator.random(shape, dtype=np.float32))
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))

    def _generator(self, stream: str, step: int, draw: int, i: int) -> np.random.Generator:
        """Return this thread's Philox, set to the beginning of a stream of the counter scheme."""
        return _PHILOX.at(*counter_key(self, stream, step, draw, i))

    def _hashed(self, stream: str, step: int, draw: int, i: int) -> torch.Generator:
        """Return this thread's torch generator, seeded with the key of the hash scheme."""
        if i > _MASK:
            raise BadInput(f"sample id {i}", "does not fit the hash scheme", "use scheme='counter'")
        if min(i, step, draw) < 0:
            raise BadInput(
                f"sample {i}, step {step}, draw {draw}", "is out of range", "count from 0"
            )
        base = self.seed
        if self.path or draw or stream in ("uniform", "bits"):
            # One nested tuple: no fold can spell the key of another draw or of another stream.
            other = stream if stream == "bits" else stream == "uniform"
            base = _digest((self.seed, self.path, other, draw), 32)
        return _SEEDED.at(hash_key(base, i, 2 * step + (stream == "reverse")))


class _Seeded(threading.local):
    """One torch generator a thread, for as long as one draw."""

    def __init__(self) -> None:
        self._generator = torch.Generator()

    def at(self, key: int) -> torch.Generator:
        """Return it as a new one with this seed; to be used up before the next call."""
        return self._generator.manual_seed(key)


_SEEDED = _Seeded()


class _Philox(threading.local):
    """One generator a thread: to make another costs far more than to set this one."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)
        self._start: dict[str, Any] = {
            "bit_generator": "Philox",
            "state": {},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }

    def at(self, key: tuple[int, int], counter: tuple[int, int, int, int]) -> np.random.Generator:
        """Return it with nothing drawn since `counter`; to be used up before the next call."""
        self._start["state"] = {"key": key, "counter": counter}
        self._bits.state = self._start  # type: ignore[assignment]
        return self._generator


_PHILOX = _Philox()


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of a shape as ints."""
    if type(shape) in (tuple, torch.Size) and all(
        type(side) is int and side >= 0 for side in shape
    ):
        return tuple(shape)
    return tuple(whole(side, "a side of shape") for side in listed(shape))


def _stacked(drawn: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    return (
        torch.stack(drawn) if drawn else torch.empty((0, *shape), dtype=torch.float32, device="cpu")
    )


def joined_id(xi: RandomnessConfig, *parts: int) -> int:
    """Return one sample id for several numbers, such as an image and a sample of noise.

    Example:
        >>> joined_id(RandomnessConfig(0), 3, 7) != joined_id(RandomnessConfig(0), 7, 3)
        True
    """
    return _digest(("joined", *parts), 32 if xi.scheme == "hash" else 56)


def row_seed(xi: RandomnessConfig, sample: int) -> int:
    """Return a seed of 56 bits for a global generator while one row is computed.

    It depends on the whole configuration and on the sample id, by SHA-256.
    """
    return _digest(("row", xi.seed, xi.scheme, xi.path, sample), 56)


def check_xi(xi: object) -> None:
    """Refuse what is no randomness configuration; None stands for none.

    Raises:
        BadInput: naming what was given.

    Example:
        >>> check_xi(3)
        Traceback (most recent call last):
        ...
        advpure.BadInput: xi 3 is no randomness configuration; pass RandomnessConfig(seed)
    """
    if xi is not None and not isinstance(xi, RandomnessConfig):
        fix = "pass RandomnessConfig(seed)"
        raise BadInput(f"xi {shown(xi)}", "is no randomness configuration", fix)


def _is_path(path: object) -> bool:
    """Return True if a value is a path of `fold`: a tuple of names and numbers."""
    return type(path) is tuple and all(type(name) in (str, int) for name in path)


def _purpose(name: object) -> str | int:
    """Return a text or a whole number that names a purpose; its repr goes into a key."""
    if type(name) in (str, int):
        return name  # type: ignore[return-value]
    plain = as_integer(name)
    if plain is None:
        raise BadInput(f"name {shown(name)} of fold", "is no text or int", "convert it first")
    return plain


def check_ids(ids: Ids, count: int | None = None, *, distinct: bool = False) -> list[int]:
    """Refuse anything but whole, non-negative sample ids, one per row.

    Args:
        ids: [B], a sequence of int or an int64 tensor.
        count: The number of rows they must match, if known.
        distinct: Whether none may come twice: rows of one id share all noise.

    Raises:
        BadInput: naming the rule.
    """
    if isinstance(ids, set | frozenset | Mapping):
        rule = "has no order that the rows could have"
        raise BadInput(f"ids {shown(ids)}", rule, "pass a list, one id per row")
    if isinstance(ids, Tensor):
        check_plain(ids, "ids", "pass data-set indices")
        if ids.ndim != 1 or ids.dtype not in _INTEGERS:
            raise BadInput(
                f"ids of shape {tuple(ids.shape)} and dtype {ids.dtype}",
                "are not a list of whole numbers",
                "pass the data-set index of each row",
            )
        listed: list[int] = ids.tolist()
    else:
        try:
            given = [None] if isinstance(ids, str | bytes) else [as_integer(i) for i in ids]
        except TypeError:
            given = [None]
        if None in given:
            rule = "are not a list of whole numbers"
            raise BadInput(f"ids {shown(ids)}", rule, "pass data-set indices")
        listed = given  # type: ignore[assignment]
    if count is not None and len(listed) != count:
        raise BadInput(
            f"{len(listed)} sample ids",
            f"do not match a batch of {count} images",
            "bind one id per row with bind(ids)",
        )
    if listed and not (min(listed) >= 0 and max(listed) < 2**63):
        wrong = min(listed) if min(listed) < 0 else max(listed)
        raise BadInput(f"sample id {shown(wrong)}", "is out of range", "use 0 .. 2**63 - 1")
    if distinct and len(set(listed)) < len(listed):
        twice = shown(next(i for i in listed if listed.count(i) > 1))
        raise BadInput(f"sample id {twice}", "appears twice", "give each image its own id")
    return listed


@lru_cache(maxsize=4096)
def _digest(path: tuple[object, ...], bits: int) -> int:
    """Hash nested tuples of str and int, whose repr is injective."""
    return int.from_bytes(hashlib.sha256(repr(path).encode()).digest()[: bits // 8], "little")


_Context = tuple[RandomnessConfig, str, int, tuple[int, ...], int]


class _Drawn(NamedTuple):
    """The rows of one context that were drawn: values [K, *shape], and the row of each id."""

    values: Tensor
    places: dict[int, int]

    @property
    def size(self) -> int:
        """Bytes held, about 200 a row beside the numbers themselves."""
        return 4 * self.values.numel() + 200 * len(self.places)


class _NoiseCache:
    """Rows of noise that were drawn before, least recently used contexts leaving first.

    A cache never changes a result: rows are pure functions of their key. Each context keeps one
    tensor, since thousands of small ones would weigh more than their numbers.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self._bytes = limit, 0
        self._contexts: OrderedDict[_Context, _Drawn] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, context: _Context, samples: list[int]) -> Tensor:
        xi, stream, step, shape, draw = context
        with self._lock:
            drawn = self._contexts.pop(context, None) or _Drawn(
                torch.empty((0, *shape), dtype=torch.float32, device="cpu"), {}
            )
            self._bytes -= drawn.size
            missing = [i for i in dict.fromkeys(samples) if i not in drawn.places]
            if missing:
                fresh = torch.stack([xi._draw(stream, step, shape, draw, i) for i in missing])
                places = drawn.places | {i: len(drawn.places) + k for k, i in enumerate(missing)}
                drawn = _Drawn(torch.cat([drawn.values, fresh]), places)
            self._contexts[context] = drawn
            self._bytes += drawn.size
            while self._bytes > self.limit and self._contexts:
                _, gone = self._contexts.popitem(last=False)
                self._bytes -= gone.size
        rows = [drawn.places[i] for i in samples]
        first = rows[0] if rows else 0
        if rows == list(range(first, first + len(rows))):  # a tile again, the common case
            return drawn.values[first : first + len(rows)].clone()
        return drawn.values[rows]

    def clear(self) -> None:
        with self._lock:
            self._contexts.clear()
            self._bytes = 0


_CACHE = _NoiseCache(limit=8 * 2**20)


def set_noise_cache(megabytes: float) -> None:
    """Bound the memory of cached noise; 0 switches the cache off. The default is 8 MB."""
    megabytes = number(megabytes, "a cache of megabytes", Range(least=0))
    _CACHE.clear()
    _CACHE.limit = int(megabytes * 2**20)
