"""A model of somebody's own, with its randomness under control.

Its randomness is one of

* ``none``: it draws nothing;
* ``keyed``: it takes ``(images, ids, randomness)`` and draws from `RandomnessConfig`;
* ``generator``: it draws from the global generators of torch, NumPy or Python. Every row is
  computed alone, with the generators set to a seed made of configuration and sample id, so a row
  has the same bits in every batch, order and repetition;
* ``fresh``: two equal calls under equal seeds differ (a generator of its own, the clock). No key
  controls it, so it is never treated as fixed.

Which one is found out by calling it, see `OwnModel.examine`. The mode of a module is never changed.
"""

import copy
import random
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput, ModelFault
from advpure.base.factories import keyed_arguments
from advpure.base.imports import contained, explain, seeded
from advpure.core.chain import Noise, RowKeys, Step
from advpure.core.precision import Precision, computed_in
from advpure.core.randomness import RandomnessConfig, row_seed
from advpure.core.steady import check_steady, differ, refuse_unmade
from advpure.core.tiling import same, tiled, unspoilt

Draws = Literal["none", "keyed", "generator", "fresh"]
_FIRST: RowKeys = tuple((RandomnessConfig(0), i) for i in range(2))


class OwnModel(nn.Module):
    """A callable of images [B, C, H, W] in [0, 1], as a module whose randomness has keys.

    Args:
        function: A module or function of one batch, or of ``(images, ids, randomness)``. It answers
            with images [B, C, H, W], classes' logits [B, K], or an object with ``.logits``.
        name: What it is called in messages.
        before: What images pass first, such as a normalisation.
        after: Turns its answer, with the images, into logits.
        module: Name of the module of its code, whose default dtype of torch it is called under.

    Attributes:
        draws: Where its randomness comes from.
        answers: ``images`` or ``classes``, what it was found to return.
        is_examined: Whether it was called, so that these are known.
        precision: What its function is computed in; see `advpure.core.lowered.lower`.
        span: The least and the largest value of the images that it answered with.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        before: nn.Module | None = None,
        after: Callable[[Tensor, Tensor], Tensor] | None = None,
        module: str = "",
    ) -> None:
        """Wrap the callable; nothing is called."""
        super().__init__()
        refuse_unmade(function, name)
        self.function: Any = function
        self.name, self.before, self.after = name, before, after
        self.module = module
        self.takes_keys = keyed_arguments(function)
        self.draws: Draws = "keyed" if self.takes_keys else "none"
        self.answers: Literal["images", "classes"] = "images"
        self.is_examined = False
        self.precision: Precision = "float32"
        self.span = (0.0, 1.0)

    @property
    def is_random(self) -> bool:
        """Whether it draws random numbers."""
        return self.draws != "none"

    def forward(self, images: Tensor) -> Tensor:
        """Answer without keys, which only a model without randomness can.

        Raises:
            BadInput: for a model that draws random numbers.
        """
        if self.is_random:
            raise BadInput(
                f"{self.name}, which draws random numbers,",
                "is asked without a key for them",
                "use a study that controls its randomness, such as advpure attack",
            )
        return self.keyed(images, None)

    def keyed(self, images: Tensor, keys: RowKeys | None) -> Tensor:
        """Answer for rows with these keys; None where nothing is drawn.

        Cost: one call; of a ``generator`` model one call a row.
        """
        if self.draws == "none" or keys is None:
            before = _states()
            answer = self._ask(images)
            if _states() != before:
                raise BadInput(
                    f"{self.name}",
                    "draws random numbers that its first calls did not draw",
                    "let it take (images, ids, randomness), or draw in every call",
                )
            return answer
        if self.draws == "generator":
            return self._row_by_row(images, keys)
        configurations = list(dict.fromkeys(xi for xi, _ in keys))
        if len(configurations) == 1:
            return self._grouped(images, keys)
        parts: dict[int, Tensor] = {}
        for xi in configurations:
            places = [k for k, (own, _) in enumerate(keys) if own == xi]
            full = places + places[:1] * (len(keys) - len(places))  # as many rows as in one call
            answers = self._grouped(images[full], tuple(keys[k] for k in full))
            parts |= dict(zip(places, answers, strict=False))
        return torch.stack([parts[k] for k in range(len(keys))])

    def examine(self, shape: tuple[int, ...], tile: int | None = None) -> "OwnModel":
        """Find out how it draws and what it answers, by calls on grey noise; return itself.

        Args:
            shape: Images, [C, H, W].
            tile: Rows of a batch, tried where two rows fail: a model may take no other number.

        Raises:
            BadInput: when it cannot be called with such images, answers with something else, or
                answers otherwise in training mode than in evaluation mode.

        Cost: two calls on two rows, and two more where a part of it is in training mode.
        """
        return self._examine(shape, 2, tile)

    def _examine(self, shape: tuple[int, ...], rows: int, tile: int | None) -> "OwnModel":
        pen = torch.Generator().manual_seed(0)
        parameter = next((each for each in self.parameters()), None)
        images = torch.rand((rows, *shape), generator=pen, device="cpu")
        if parameter is not None:
            images = images.to(parameter.device)
        keys = (_FIRST * len(images))[: len(images)]
        with torch.no_grad(), torch.inference_mode(False), seeded():
            start = _states()
            try:
                first = unspoilt(lambda x: self._plain(x, keys))(images).detach()
            except BadInput:
                if tile is None:
                    raise
                return self._examine(shape, tile, None)
            is_drawn = _states() != start
        with torch.no_grad(), torch.inference_mode(False), seeded():
            second = self._plain(images, keys)
        if differ(first, second) is not None:
            self.draws = "fresh"
        elif is_drawn:
            self.draws = "generator"
        self.answers, self.is_examined = _kind(first, images, self.name), True
        if not bool(first.isfinite().all()):
            rule = "answers with NaN or infinite values"
            raise ModelFault(self.name, rule, "mend it", "not-finite")
        if self.answers == "images":
            self.span = float(first.min()), float(first.max())
        self._refuse_training(images, keys)
        return self

    def is_blind(self, shape: tuple[int, ...], rows: int = 2) -> bool:
        """Return whether the gradient of its answers is absent or exactly zero.

        Cost: one forward and one backward call on two rows.
        """
        pen = torch.Generator().manual_seed(1)
        images = torch.rand((rows, *shape), generator=pen, device="cpu")
        parameter = next((each for each in self.parameters()), None)
        if parameter is not None:
            images = images.to(parameter.device)
        with torch.inference_mode(False), torch.enable_grad(), seeded():
            images.requires_grad_()
            try:
                answer = self._plain(images, (_FIRST * rows)[:rows])
                if not answer.requires_grad:
                    return True
                (gradient,) = torch.autograd.grad(answer.square().sum(), images, allow_unused=True)
            except (BadInput, RuntimeError):  # as numpy() of what has a graph
                return True
        return gradient is None or not bool(gradient.any())

    def check_steady(self, images: Tensor, tile: int | None, *, repeatable: bool = True) -> None:
        """Refuse a model that learns, changes its input or, if `repeatable`, draws without keys.

        Raises:
            BadInput: see `advpure.core.steady`.
        """
        if repeatable:
            self.check_controlled()
        ids = torch.arange(len(images), dtype=torch.int64, device="cpu")

        def ask(x: Tensor) -> Tensor:
            return tiled(
                lambda part, i: self.keyed(
                    part, keys_of(self, Noise(RandomnessConfig(0), i), JUDGE, len(part))
                ),
                tile,
            )(x, ids[: len(x)])

        check_steady(self, ask, images, repeatable=self.draws != "fresh")

    def check_controlled(self) -> None:
        """Refuse a model whose randomness no key controls.

        Raises:
            BadInput: naming the ways out.
        """
        if self.draws == "fresh":
            raise ModelFault(
                f"{self.name}",
                "answers two equal calls differently, and no key controls what it draws",
                "draw from torch's global generator or take (images, ids, randomness), or use "
                "fresh randomness (advpure attack without --fix-random)",
                "unrepeatable",
            )

    def _refuse_training(self, images: Tensor, keys: RowKeys) -> None:
        """Refuse a module whose answers in training and in evaluation mode differ."""
        modules = self.function.modules() if isinstance(self.function, nn.Module) else ()
        if not any(each.training for each in modules) or self.draws == "fresh":
            return
        try:
            twin = copy.deepcopy(self)
        except Exception:  # no copy, no comparison: layers are watched one by one when they run
            return
        answers = []
        for mode in (None, False):
            if mode is False:
                twin.function.eval()
            with torch.no_grad(), seeded():
                answers.append(twin._plain(images, keys))
        if differ(*answers) is not None:
            raise ModelFault(
                f"{self.name} in training mode",
                "answers otherwise than in evaluation mode, under equal draws",
                "call .eval() on it where it is made; what is to be random is to be so in both",
                "training",
            )

    def _plain(self, images: Tensor, keys: RowKeys) -> Tensor:
        """Call once, as it is."""
        return self._ask(images, *(_arguments(keys) if self.takes_keys else ()))

    def _grouped(self, images: Tensor, keys: RowKeys) -> Tensor:
        """Answer for rows that share one configuration."""
        if self.takes_keys and self.draws == "keyed":
            return self._plain(images, keys)
        with seeded(row_seed(*keys[0]), str(images.device)):
            return self._plain(images, keys)

    def _row_by_row(self, images: Tensor, keys: RowKeys) -> Tensor:
        """Compute every row alone under its own seed; padding is not computed again."""
        count = len(keys)
        while count > 1 and keys[count - 1] == keys[0] and same(images[count - 1], images[0]):
            count -= 1
        parts = []
        for k in range(count):
            with seeded(row_seed(*keys[k]), str(images.device)):
                parts.append(self._plain(images[k : k + 1], keys[k : k + 1]))
        parts += [parts[0].detach()] * (len(keys) - count)
        return torch.cat(parts)

    def _ask(self, images: Tensor, *arguments: Any) -> Tensor:
        shown = images if self.before is None else self.before(images)
        try:
            answer = computed_in(self.precision, self._tensor, shown, *arguments)
        except BadInput:
            raise
        except Exception as error:
            rule = f"fails ({explain(error)})"
            fix = "let it take such images; what cannot be differentiated needs --gradient bpda"
            raise BadInput(f"{self.name} given images {[*images.shape]}", rule, fix) from error
        answer = _usable(answer, images, self.name)
        return answer if self.after is None else self.after(answer, images)

    def _tensor(self, *given: Any) -> Tensor:
        with contained(self.module):
            return logits_of(self.function(*given))


JUDGE = Step(
    name="classifier",
    phase="reverse",
    time=0,
    move=lambda x, z: x,
    noisy=True,
    keyed=True,
    stream=2**20,
)
"""Keys the randomness of a classifier apart from that of a purifier."""


def keys_of(model: OwnModel, noise: Noise, step: Step, count: int) -> RowKeys | None:
    """Return the keys of a batch at a step, None for a model that draws nothing."""
    return noise.keys(step, count) if model.is_random else None


def logits_of(answer: Any) -> Tensor:
    """Return the tensor of an answer: itself, or ``.logits`` of an object or a mapping.

    Raises:
        BadInput: for an answer without either.

    Example:
        >>> logits_of({"logits": torch.zeros(1, 2)}).shape
        torch.Size([1, 2])
    """
    if isinstance(answer, Tensor):
        return answer
    has_key = hasattr(answer, "keys") and "logits" in answer
    inside = answer["logits"] if has_key else getattr(answer, "logits", None)
    if not isinstance(inside, Tensor):
        raise BadInput(
            f"an answer of type {type(answer).__name__}",
            "is no tensor and has no .logits",
            "return images [B, C, H, W] or logits [B, classes]",
        )
    return inside


def _usable(answer: Tensor, images: Tensor, name: str) -> Tensor:
    """Return an answer, images in the precision of those that it was given.

    Raises:
        BadInput: for one without values where it is needed, and for images that are not real.
    """
    if answer.layout != torch.strided or answer.device != images.device:
        place = f"a {str(answer.layout).removeprefix('torch.')} tensor on {answer.device}"
        raise BadInput(name, f"answers with {place}", f"return a dense one on {images.device}")
    if answer.shape != images.shape:
        return answer
    if not answer.is_floating_point():
        rule = f"answers with images of dtype {answer.dtype}".replace("torch.", "")
        raise BadInput(name, rule, "return floating point in [0, 1]")
    return answer.to(images.dtype)


def _kind(answer: Tensor, images: Tensor, name: str) -> Literal["images", "classes"]:
    if answer.shape == images.shape:
        return "images"
    if answer.ndim == 2 and len(answer) == len(images):
        return "classes"
    raise BadInput(
        f"{name} given images {[*images.shape]}",
        f"answers with {[*answer.shape]}",
        "return images of the same shape, or logits [B, classes]",
    )


def _arguments(keys: RowKeys) -> tuple[Tensor, RandomnessConfig]:
    ids = torch.tensor([i for _, i in keys], dtype=torch.int64, device="cpu")
    return ids, keys[0][0]


def _states() -> tuple[object, ...]:
    """Return where the global generators stand."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    cuda = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    return (
        torch.default_generator.get_state().numpy().tobytes(),
        np.asarray(numpy[1]).tobytes(),
        numpy[2:],
        random.getstate(),
        torch.cuda.get_rng_state().numpy().tobytes() if cuda else None,
    )
