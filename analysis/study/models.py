"""Studies of one purifier, alone or in front of a classifier, on images."""

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, get_type_hints

from advpure.analysis.study.loaded import LoadedModel, Shard
from advpure.analysis.study.report import Report
from advpure.analysis.study.study import Study
from advpure.analysis.subject import DefenseSubject, Seeded, Subject
from advpure.analysis.target import as_target
from advpure.base.flags import is_beside
from advpure.base.idle import changed
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.loading import describe
from advpure.runs.cost import Cost, estimate

R = TypeVar("R", bound=Report)


@dataclass(frozen=True, kw_only=True)
class ModelStudy(Subject, Study[LoadedModel, R]):
    """A study of one purifier on images.

    Class attributes:
        keyed: Which of ``seed`` and ``scheme`` key more than what the model draws, or are told of
            by the report itself.
    """

    keyed: ClassVar[frozenset[str]] = frozenset({"seed"})
    sources: ClassVar[tuple[object, ...]] = ()
    """Functions and classes whose files the records name, beside the purifier's."""
    passes: ClassVar[tuple[int, int]] = (1, 0)
    """Forward and backward passes through the model, per image, for the cost."""

    @property
    @abstractmethod
    def xi(self) -> RandomnessConfig:
        """The randomness that the model is bound to."""

    def describe(self, model: Any, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what identifies the run beside verb, images and device, as JSON values.

        By default the model, with the sha256 of its networks, in `defense`; its randomness; and
        the fields that the study declares itself, without those marked `Beside`.
        """
        shared = {each.name for each in fields(DefenseSubject)} | {"seed"}
        hints = get_type_hints(type(self), include_extras=True)
        own = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in shared and not is_beside(hints[each.name])
        }
        return {
            "defense": describe(model) if isinstance(model, Defense) else as_target(model).settings,
            "randomness": {"seed": xi.seed, "scheme": xi.scheme},
            **own,
        }

    def load_model(self, xi: RandomnessConfig) -> Purifier | Defense:
        """Load what is measured."""
        return self.load_purifier(xi)

    def load(self) -> LoadedModel:
        """Load model and images, and resolve the settings."""
        xi = self.xi
        model, images = self.load_model(xi), self.load_images()
        settings = {**self.identity(self.verb, images), **self.describe(model, images, xi)}
        return LoadedModel(
            settings=settings,
            context=self.context(model, settings.get("defense", settings), *self.sources),
            samples=images.ids.tolist(),
            model=model,
            images=images,
            xi=xi,
        )

    def idle(self, loaded: LoadedModel) -> tuple[str, ...]:
        """Return a note where keys of noise are set and no noise is drawn.

        A comparison of many defenses may share them, so the run is not refused.
        """
        names = [name for name in ("seed", "scheme") if hasattr(self, name)]
        set_here = changed(self, [name for name in names if name not in self.keyed])
        if loaded.model.is_random or not set_here:
            return ()
        said = " and ".join(f"{name} {value}" for name, value in set_here.items())
        verb = "change" if len(set_here) > 1 else "changes"
        return (f"{said} {verb} nothing for {loaded.purifier.name}, which draws no noise",)

    def share(self, loaded: LoadedModel, shard: Shard) -> LoadedModel:
        """Return every k-th image, from the i-th; see `LoadedModel.share`."""
        return loaded.share(shard)

    def total(self, loaded: LoadedModel) -> int:
        """Return the number of images."""
        return len(loaded.images.ids)

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of `passes` through the model."""
        view = loaded.model.at(xi=loaded.xi)
        return estimate(view, loaded.images.images[:8], len(loaded.images.ids), *self.passes)


@dataclass(frozen=True, kw_only=True)
class PurifierStudy(Seeded, ModelStudy[R]):
    """A study of one purifier under one configuration of its randomness."""

    @property
    def xi(self) -> RandomnessConfig:
        """The randomness of the seed."""
        return RandomnessConfig(self.seed, self.scheme)


@dataclass(frozen=True, kw_only=True)
class DefenseStudy(DefenseSubject, PurifierStudy[R]):
    """A study of one purifier in front of a classifier, under one configuration."""

    of_defense: ClassVar[bool] = True

    def load_model(self, xi: RandomnessConfig) -> Purifier | Defense:
        """Load the defense; a study that can do without a classifier may load the purifier."""
        return self.load_defense(xi)
