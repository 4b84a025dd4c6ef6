"""Purifiers of users' code: a settings class is made of whatever the code is.

* a `Recipe` class: as it is, like one of ours;
* a factory of a `Chain`, with the denoiser as argument ``denoiser`` where it takes one;
* a module or function from images in [0, 1] to images, or to logits: then a whole defense.

The parameters of a class or factory become the options.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.factories import Factory, read_factory
from advpure.base.imports import Code
from advpure.base.units import to_model, to_unit
from advpure.base.validation import shown
from advpure.core.chain import Chain, RowKeys, Step
from advpure.core.denoisers import Denoiser
from advpure.core.own import OwnModel
from advpure.core.recipe import Recipe

_TAKEN = (
    "network",
    "votes",
    "chain",
    "surrogate",
    "factory",
    "purifier",
    "denoiser",
    "name",
    "dataset",
    "xi",
    "gradient",
    "tile",
    "weights",
    "classifier",
    "outputs",
    "policy",
    "normalize",
    "classifier_options",
    "model",
    "boost",
    "boost_options",
)
"""What means something else to `load_defense`: such parameters keep their defaults."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnRecipe(Recipe):
    """Settings of a purifier of a user's; its fields are the parameters of the code."""

    network: ClassVar[str | None] = None
    factory: ClassVar[Factory]

    @property
    def model(self) -> OwnModel | None:
        """The module around the code; None where it makes a chain, which has no module."""
        made = self._made(None) if self.network is None else None
        return made if isinstance(made, OwnModel) else None

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Return the chain that the code makes, or one step of the module."""
        made = self._made(denoiser)
        return Chain([own_step(made)]) if isinstance(made, OwnModel) else made

    def surrogate(self, denoiser: Denoiser | None) -> Chain | None:
        """Return the chain of the module's attribute ``surrogate``, where it has one."""
        model = self.model
        stand_in = None if model is None else getattr(model.function, "surrogate", None)
        if not callable(stand_in):
            return None
        shorter = OwnModel(
            stand_in,
            f"the surrogate of {self.factory.code.name}",
            module=self.factory.code.module,
        )
        shorter.precision = model.precision if model is not None else "float32"
        return Chain([own_step(shorter)])

    def _made(self, denoiser: Denoiser | None) -> OwnModel | Chain:
        """Build what the code makes, of a module once."""
        made: OwnModel | None = self.__dict__.get("_model")
        if made is not None:
            return made
        options = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        built = self.factory.build(options, denoiser=denoiser)
        name = self.factory.code.name
        if isinstance(built, Chain):
            return built
        if isinstance(built, Denoiser):
            fix = f"write --denoiser {name} -d ddpm (denoiser= in Python)"
            raise BadInput(f"defense {name}", "is a denoiser, not a purifier", fix)
        if isinstance(built, Recipe):
            rule = "makes a settings object"
            raise BadInput(f"defense {name}", rule, "name its class, whose fields are the options")
        if not callable(built):
            rule = f"gives {shown(built)}, which cannot be called"
            raise BadInput(f"defense {name}", rule, "name a module or function of images")
        made = OwnModel(built, f"defense {name}", module=self.factory.code.module)
        object.__setattr__(self, "_model", made)
        return made


def recipe_of(code: Code) -> type[Recipe]:
    """Return the settings class of a purifier that is a user's code.

    Raises:
        BadInput: for what can be no purifier.

    Example:
        >>> from advpure.base.imports import code_of
        >>> def halve(images, by: float = 2.0): return images / by
        >>> kind = recipe_of(code_of(halve))
        >>> kind(by=4.0).chain(None).evaluations
        1
    """
    value = code.value
    if isinstance(value, type) and issubclass(value, Recipe):
        return value
    if (isinstance(value, type) and issubclass(value, Denoiser)) or isinstance(value, Denoiser):
        fix = f"write --denoiser {code.name} -d ddpm (denoiser= in Python)"
        raise BadInput(f"defense {code.name}", "is a denoiser, not a purifier", fix)
    if not callable(value) and not isinstance(value, Chain):
        rule = f"is of type {type(value).__name__}, not a model"
        raise BadInput(f"defense {code.name}", rule, "name a class, a function or a module")
    factory = read_factory(code, given=("denoiser",))
    fields = [
        (name, hint, dataclasses.field(default=default))
        for name, (hint, default) in factory.options.items()
        if name not in _TAKEN
    ]
    kind: type[Recipe] = dataclasses.make_dataclass(
        "Own",
        fields,
        bases=(OwnRecipe,),
        frozen=True,
        kw_only=True,
        namespace={"factory": factory, "network": "edm" if factory.given else None},
    )
    kind.__module__ = code.module
    return kind


def own_step(model: OwnModel) -> Step:
    """Make the one step that a module is."""

    def images(x: Tensor, keys: RowKeys | None) -> Tensor:
        return model.keyed(x, keys)

    def move(x: Tensor, keys: RowKeys | None) -> Tensor:
        return to_model(model.keyed(to_unit(x), keys))

    return Step(
        name=model.name,
        phase="reverse",
        time=0,
        move=move,
        images=images,
        evaluations=1,
        noisy=model.is_random,
        keyed=True,
    )


def described(model: OwnModel, code: Code, state: str | None) -> Mapping[str, Any]:
    """Return what identifies a model of a user's in records, as JSON values."""
    about = {"name": code.name, "code": code.sha256, "draws": model.draws}
    return about if state is None else {**about, "sha256": state}
