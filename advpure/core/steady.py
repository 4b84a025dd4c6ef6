"""Whether a callable gives equal answers to equal calls, asked once before it is studied.

Robustness and compression compare answers, so what answers must be one function. A layer in
training mode (batch normalisation, dropout), a functional dropout or a private generator makes it
none: the numbers that follow mean nothing, and running statistics move. `check_steady` calls the
callable twice on a small batch and watches what runs inside, wherever it hides (a lambda, a
wrapper, a closure), since every module that runs reports itself. It refuses

* a module in training mode whose answers differ from those of a copy in evaluation mode under equal
  draws, and a batch normalisation that is about to use the statistics of the batch, before it runs;
* buffers (running statistics) that moved, which are put back;
* images that it changes in place;
* two answers that differ by more than rounding.

Networks that this package loads (`trust`) are only held to their modes, without a call. It never
changes the mode of a module (a flag that changes no answer is no fault), and leaves the global
generators as they were.
"""

import contextlib
import copy
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from advpure.base.errors import BadInput, ModelFault
from advpure.base.imports import seeded
from advpure.core.tiling import same, unspoilt, watched_tiles

Ask = Callable[[Tensor], Any]
Module = TypeVar("Module", bound=nn.Module)
ROWS = 2
"""Rows that are asked about."""
_COUPLING = (_BatchNorm, _DropoutNd)
_ROUNDINGS = 64
"""Units in the last place by which two equal calls may differ, where a device adds in any order."""


def check_steady(
    owner: object, ask: Ask, images: Tensor, *, repeatable: bool = True, fix: str = ""
) -> None:
    """Refuse a callable whose answers to equal calls differ, or that learns while it answers.

    Args:
        owner: What the answers come from; it is asked once as long as its modules keep their modes.
        ask: Calls it, with the same randomness each time: images [R, ...] to a tensor.
        images: [B, ...]; the first two rows are used.
        repeatable: Whether two answers must agree; False for what is random by declaration.
        fix: What to do about answers that differ.

    Raises:
        BadInput: see the module; also when it cannot be called with such images.

    Cost: two calls on two rows, the first time; of a network in training mode copies are asked too.

    Example:
        >>> check_steady(None, lambda x: functional.dropout(x, 0.5), torch.ones(2, 1, 8, 8))
        Traceback (most recent call last):
        ...
        advpure.base.errors.ModelFault: a model whose answers to two equal calls differ by 2 is no \
function of its input; fix its randomness
    """
    refuse_unmade(owner)
    if isinstance(owner, nn.Module) and owner in _TRUSTED:
        check_fit(owner, images)
        for module in _TRUSTED[owner].coupling:
            _refuse_training(module)
        return
    kind = (tuple(images.shape[1:]), images.dtype)
    if not len(images) or _KNOWN.holds(owner, kind, repeatable):
        return
    watch = _Watch()
    with torch.inference_mode(False), torch.no_grad(), seeded(device=str(images.device)):
        try:
            first, second = _twice(ask, images, watch)
        finally:
            moved = watch.restore()
    if moved:
        raise ModelFault(
            f"a model that changes its buffers ({moved})",
            "learns while it is measured",
            "call model.eval()",
            "buffers",
        )
    if repeatable:
        _compare(first, second, fix or "fix its randomness")
    _KNOWN.add(owner, kind, repeatable, watch.modes())


def refuse_unmade(owner: object, name: str = "a model") -> None:
    """Refuse a module whose ``__init__`` never called that of `torch.nn.Module`.

    Raises:
        BadInput: naming it.
    """
    if isinstance(owner, nn.Module) and "_parameters" not in vars(owner):
        rule = (
            f"is of class {type(owner).__name__}, whose __init__ does not call super().__init__()"
        )
        raise BadInput(name, rule, "call it first there")


def calls_of_check(owner: object) -> int:
    """Return how often `check_steady` calls a network the first time, copies of it included.

    Networks of ours are not called, others twice; of one in training mode three copies are asked.
    What a function calls inside is not known beforehand, and counts as no module.

    Example:
        >>> calls_of_check(nn.Identity().eval()), calls_of_check(nn.Identity())
        (2, 5)
    """
    refuse_unmade(owner)
    if is_trusted(owner):
        return 0
    modules = owner.modules() if isinstance(owner, nn.Module) else ()
    return 2 + (len(_MODES) if any(each.training for each in modules) else 0)


def is_trusted(owner: object) -> bool:
    """Return whether a network was loaded by this package."""
    return isinstance(owner, nn.Module) and owner in _TRUSTED


class _Trusted(NamedTuple):
    """What is known of a network of ours: layers that mix rows, the images that it takes."""

    coupling: list[nn.Module]
    shape: tuple[int, ...] | None


_TRUSTED: weakref.WeakKeyDictionary[nn.Module, _Trusted] = weakref.WeakKeyDictionary()


def trust(network: Module, shape: tuple[int, ...] | None = None) -> Module:
    """Return a network that is known to be a function of its input in evaluation mode.

    Args:
        network: The network.
        shape: The images that it takes, [C, H, W]; None where it is not known.
    """
    coupling: list[nn.Module] = [m for m in network.modules() if isinstance(m, _COUPLING)]
    _TRUSTED[network] = _Trusted(coupling, shape)
    return network


def trusted_shape(network: nn.Module) -> tuple[int, ...] | None:
    """Return the images that a network of ours takes, [C, H, W], None where it is not known."""
    return _TRUSTED[network].shape if network in _TRUSTED else None


def check_fit(network: object, images: Tensor) -> None:
    """Refuse images of another shape than a network of ours takes, or in another precision.

    Other networks may resize and convert what they are given.

    Raises:
        BadInput: naming what it takes.
    """
    if not isinstance(network, nn.Module) or network not in _TRUSTED:
        return
    shape = _TRUSTED[network].shape
    if shape is not None and tuple(images.shape[1:]) != shape:
        raise BadInput(
            f"images of shape {tuple(images.shape)}",
            f"do not fit networks that take {['B', *shape]}".replace("'", ""),
            "load those of the images' data set, or resize the images",
        )
    parameters = (each.dtype for each in network.parameters() if each.is_floating_point())
    own = next(parameters, images.dtype)
    if own != images.dtype:
        a, b = (str(each).removeprefix("torch.") for each in (images.dtype, own))
        raise BadInput(
            f"images of {a} for a network of {b}",
            "mix two precisions",
            f"pass images.to(torch.{b}), or call .to(torch.{a}) on the networks",
        )


def _twice(ask: Ask, images: Tensor, watch: "_Watch") -> tuple[Any, Any]:
    """Call twice on a few rows; explain a refusal by the model."""
    few = _plain(images[:ROWS])
    try:
        with watch:
            return _answer(ask, few), _answer(ask, few)
    except _FAULTS as error:
        if isinstance(error, BadInput):
            raise
        if len(images) > ROWS and _works(ask, _plain(images), watch):
            raise BadInput(
                f"a model that takes {len(images)} rows and not {len(few)}",
                "has a fixed batch size",
                "set model.tile to it, and batches are cut and padded",
            ) from error
        raise BadInput(
            f"a model given images {list(few.shape)} of {few.dtype}".replace("torch.", ""),
            f"fails ({_line(error)})",
            "pass images of the shape and dtype that it takes",
        ) from error


def _answer(ask: Ask, few: Tensor) -> Any:
    """Ask about a copy of a few rows, which has to stay as it is."""
    with watched_tiles():
        return unspoilt(ask)(few.clone())


def _works(ask: Ask, images: Tensor, watch: "_Watch") -> bool:
    try:
        with watch:
            ask(images)
    except _FAULTS:
        return False
    return True


_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _line(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 160 else f"{words[:157]}..."


def _plain(rows: Tensor) -> Tensor:
    """Return rows without a tangent, a graph, or the mark of inference mode."""
    primal: Tensor = torch.autograd.forward_ad.unpack_dual(rows).primal  # type: ignore[no-untyped-call]
    return primal.detach().clone()


def _compare(first: object, second: object, fix: str) -> None:
    """Refuse two answers that differ by more than rounding; other refusals are the caller's."""
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return
    how = differ(first, second)
    if how is not None:
        text = f"a model whose answers to two equal calls differ{how}"
        raise ModelFault(text, "is no function of its input", fix, "unrepeatable")


def differ(first: Tensor, second: Tensor) -> str | None:
    """Return by how much two answers differ, in words; None where that is at most rounding.

    Example:
        >>> differ(torch.zeros(2), torch.ones(2)), differ(torch.ones(2), torch.ones(2))
        (' by 1', None)
    """
    if first.shape != second.shape:
        return ""
    if first.is_floating_point() and first.numel():
        a, b = first.detach().double(), second.detach().double()
        gap = float((a - b).abs().nan_to_num(nan=0.0).max())
        size = float(a.abs().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).max())
        is_rounding = gap <= _ROUNDINGS * torch.finfo(first.dtype).eps * max(1.0, size)
        return None if is_rounding else f" by {gap:.3g}"
    return None if torch.equal(first, second) else ""


def _refuse_training(module: nn.Module) -> None:
    if module.training and isinstance(module, _COUPLING):
        rule = "mixes or drops samples"
        raise ModelFault("a model in training mode", rule, "call model.eval()", "training")


_MODES = (None, None, False)
"""Of the copies that are asked about a module in training mode: as it is, twice; not training."""


def _trains(module: nn.Module, given: Any) -> bool:
    """Return whether a module in training mode answers otherwise than in evaluation mode.

    Copies of it are asked, under equal draws. Where that cannot be found out, because it cannot be
    copied, takes other arguments or draws from a generator of its own, its layers decide.
    """
    layers = any(m.training and isinstance(m, _COUPLING) for m in module.modules())
    try:
        answers = []
        for mode in _MODES:
            twin = copy.deepcopy(module)
            if mode is False:
                twin.eval()
            with seeded(), _unwatched():
                answers.append(twin(*copy.deepcopy(given)))
        first, again, evaluated = answers
        if not all(isinstance(each, Tensor) for each in answers) or differ(first, again):
            return layers
    except Exception:  # foreign modules fail in many ways
        return layers
    return differ(first, evaluated) is not None


_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    """Let copies of modules run without being watched."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


class _BatchStatistics(TorchFunctionMode):
    """Refuse batch normalisation by the statistics of the batch, before it runs."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if not _QUIET.get() and func in (functional.batch_norm, torch.batch_norm):
            training = given.get("training", args[5] if len(args) > 5 else False)
            if training:
                raise ModelFault(
                    "a model that normalises by the statistics of the batch",
                    "mixes samples",
                    "call model.eval(), or keep running statistics",
                    "batch-statistics",
                )
        return func(*args, **given)


@dataclass
class _Watch:
    """Note every module that runs in this thread, with its mode and its buffers before."""

    seen: dict[int, tuple[Any, bool]] = field(default_factory=dict)
    kept: dict[int, tuple[str, Tensor, Tensor]] = field(default_factory=dict)
    alike: set[int] = field(default_factory=set)

    def __enter__(self) -> "_Watch":
        self._thread = threading.get_ident()
        self._stack = contextlib.ExitStack()
        handle = register_module_forward_pre_hook(self._look)
        self._stack.callback(handle.remove)
        self._stack.enter_context(_BatchStatistics())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _look(self, module: nn.Module, given: Any) -> None:
        other = threading.get_ident() != self._thread or _QUIET.get()
        if other or id(module) in self.seen:
            return
        if module.training and id(module) not in self.alike:
            if _trains(module, given):
                rule = "mixes or drops samples"
                raise ModelFault("a model in training mode", rule, "call model.eval()", "training")
            self.alike.update(id(each) for each in module.modules())
        self.seen[id(module)] = (weakref.ref(module), module.training)
        for name, buffer in module.named_buffers():
            if id(buffer) not in self.kept:
                self.kept[id(buffer)] = (name, buffer, buffer.detach().clone())

    def modes(self) -> "Modes":
        """Return the modules that ran, weakly held, and their modes."""
        return tuple(self.seen.values())

    def restore(self) -> str:
        """Put back buffers that moved; return the name of the first, or nothing."""
        moved = ""
        for name, buffer, before in self.kept.values():
            if buffer.shape == before.shape and not same(buffer, before):
                buffer.copy_(before)
                moved = moved or name
        return moved


Modes = tuple[tuple[Any, bool], ...]
Kind = tuple[tuple[int, ...], torch.dtype]


class _Known:
    """What was asked before: owners, weakly held, with the modules that ran and their modes."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Any, dict[Kind, tuple[bool, Modes]]]] = {}

    def holds(self, owner: object, kind: Kind, repeatable: bool) -> bool:
        """Return whether an owner was asked, and no module that ran has changed its mode."""
        reference, kinds = self._entries.get(id(owner), (lambda: None, {}))
        if owner is None or reference() is not owner or kind not in kinds:
            return False
        compared, modes = kinds[kind]
        if repeatable and not compared:
            return False
        for held, training in modes:
            module = held()
            if module is None or module.training != training:
                return False
        return True

    def add(self, owner: object, kind: Kind, repeatable: bool, modes: Modes) -> None:
        """Remember an owner that can be held weakly."""
        key = id(owner)
        if key not in self._entries or self._entries[key][0]() is not owner:
            try:
                reference = weakref.ref(owner, lambda _: self._entries.pop(key, None))
            except TypeError:
                return
            self._entries[key] = (reference, {})
        self._entries[key][1][kind] = (repeatable, modes)


_KNOWN = _Known()
