"""The proof of the gradients as a study: one row a purifier and kind of check."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from advpure.analysis.check_grad.gradients import (
    CHECKS,
    Agreement,
    Bounds,
    CheckSettings,
    GradientCheck,
    PurifierFactory,
    check_gradients,
    most_passes,
    purifier_factory,
)
from advpure.analysis.study import Loaded, Report, Session, Study
from advpure.analysis.subject import Seeded, Subject
from advpure.base.display import Display, Table
from advpure.base.errors import BadInput
from advpure.base.flags import Flag, Repeats
from advpure.base.idle import refuse_idle
from advpure.core.chain import Chain
from advpure.core.gradients import run_chain
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.recipe import Recipe
from advpure.data import dataset_info, load_images
from advpure.options import check_names
from advpure.purifiers import PURIFIERS
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore, collect_context, source_digests
from advpure.runs.schema import Count, Schema

PURIFIER = Schema(
    "purifiers",
    {"defense": str},
    {"evaluations": Count, "pairs": Count, "kinks": Count, "blind": Count},
)
"""What was asked of a purifier; see `GradientCheck`."""

AGREEMENT = Schema(
    "agreements", {"defense": str, "kind": str}, {"error": float, "cosine": float | None}
)
"""How well two gradients agree; kinds are the names of `GradientCheck`'s agreements."""

_Defenses = Annotated[tuple[str, ...], Flag("--defense", "-d"), Repeats()]
_HEADS = (
    "defense",
    "NFE",
    "ckpt/full",
    "in float32",
    "full/diff",
    "ckpt/diff",
    "kinks",
    "bpda cos",
    "surrogate cos",
    "",
)
_WRONG = (
    "ckpt/full differs: the step is not repeatable (own randomness or state) or its gain is wrong; "
    "full/diff differs: the graph is cut (detach) or rows see each other"
)


@dataclass(frozen=True, kw_only=True)
class CheckGradReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        checks: One for each purifier.
    """

    checks: tuple[GradientCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every purifier passed."""
        return all(check.passed for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0 where every purifier passed, else 1."""
        return 0 if self.passed else 1

    def tree(self) -> dict[str, Any]:
        """Return whether all passed, and all of every check."""
        checks = [dataclasses.asdict(check) | {"passed": check.passed} for check in self.checks]
        s = self.settings
        return {"passed": self.passed, "dataset": s["dataset"], "n": s["n"], "checks": checks}

    def display(self) -> Display:
        """Return a row for each purifier, the bounds, and what is wrong."""
        s, blind = self.settings, [check for check in self.checks if check.blind]
        verdict = "all gradients are exact" + (", but some are zero" if blind else "")
        if not self.passed:
            verdict = "a gradient is WRONG"
        headline = f"{s['dataset']}, {s['n']} images, {s['directions']} directions each: {verdict}"
        bounds = Bounds(**s["bounds"])
        parts: list[Table | str] = [
            Table(_HEADS, [_cells(check) for check in self.checks]),
            "relative errors: checkpoint against full autograd (bound "
            f"{bounds.checkpoint:g}; in float32 {bounds.checkpoint_float32:g}), each against "
            f"central differences (bound {bounds.difference:g}); cosines to the exact gradient",
        ]
        for check in blind:
            why = "exact but blind" if check.passed else "blind"
            zero = f"zero gradient in {check.blind} of {check.pairs} pairs"
            parts.append(f"{check.defense}: {zero}: {why}")
        return Display(headline, parts if self.passed else [*parts, _WRONG])


def _cells(check: GradientCheck) -> list[str]:
    exact = (
        check.checkpoint,
        check.checkpoint_float32,
        check.full_difference,
        check.checkpoint_difference,
    )
    return [
        check.defense,
        str(check.evaluations),
        *(f"{each.error:.1e}" for each in exact),
        f"{check.kinks} of {check.pairs}",
        *(
            "-" if each is None or each.cosine is None else f"{each.cosine:.3f}"
            for each in (check.bpda, check.surrogate)
        ),
        "BROKEN" if not check.passed else "blind" if check.blind else "ok",
    ]


@dataclass(frozen=True, kw_only=True)
class LoadedChecks(Loaded):
    """A check that can begin.

    Attributes:
        factories: Purifier to what makes it in a given precision.
        xi: The fixed randomness.
    """

    factories: Mapping[str, PurifierFactory]
    xi: RandomnessConfig


@dataclass(frozen=True, kw_only=True)
class CheckGrad(CheckSettings, Seeded, Subject, Study[LoadedChecks, CheckGradReport]):
    """Compare recomputed gradients with full autograd, and both with central differences.

    Prints a row per purifier and exits with 1 when a bound is broken. bpda and surrogate are
    approximations: their cosine to the exact gradient is shown and bounded by nothing. t, sigma
    and weights are used by the purifiers that have them; options must fit every one. A run is
    named by the code that it proves too: after a change the proof begins anew.

    Example: advpure check-grad --defense ddpm --t 20

    Attributes:
        defense: Purifier; repeats. Default: all of them.
    """

    verb: ClassVar[str] = "check-grad"
    doing: ClassVar[str] = "checking"
    tables: ClassVar[tuple[Schema, ...]] = (PURIFIER, AGREEMENT)
    figure: ClassVar[str] = "advpure.analysis.check_grad.figure:errors_figure"
    of_defense: ClassVar[bool] = True
    unused: ClassVar[Mapping[str, str]] = {
        "subset": "leave it out: the first images are checked",
        "tile": "leave it out: no tile is padded",
        "precision": "leave it out: float64 proves the code",
        "device": "leave it out: float64 on the CPU proves the code",
    }

    defense: _Defenses = ()  # type: ignore[assignment]  # several, where other subjects have one

    def __post_init__(self) -> None:
        """Check every field, and that no purifier is named twice."""
        Subject.__post_init__(self)
        for name in self.defense:
            if self.defense.count(name) > 1:
                raise BadInput(f"defense {name}", "is given twice", "name it once")

    def _refuse_idle(self, kinds: Sequence[type[Recipe]]) -> None:
        """Refuse a strength or a network that none of the purifiers has."""
        fields = {each.name for kind in kinds for each in dataclasses.fields(kind)}
        has_network = any(kind.network is not None for kind in kinds)
        known = {"t": "t" in fields, "sigma": "sigma" in fields}
        names = [name for name, has in known.items() if not has]
        names += [] if has_network else ["weights", "denoiser"]
        refuse_idle(self, names, f"means nothing to {', '.join(map(str, self.defense))}")

    def load(self) -> LoadedChecks:
        """Make every purifier once, so that what cannot be used is refused at once."""
        names = self.defense or tuple(PURIFIERS.names())
        for name in names:
            check_names(PURIFIERS.get(name), self.options, name)
        kinds = [PURIFIERS.get(name) for name in names]
        self._refuse_idle(kinds)
        load_images(self.dataset, n=self.n)
        factories = {
            name: purifier_factory(
                name,
                self.dataset,
                {"t": self.t, "sigma": self.sigma},
                self.options,
                self.weights,
                self.denoiser,
                self.boost,
                self.boost_options,
            )
            for name in names
        }
        digest = dataset_info(self.dataset).digest
        described = {name: make(torch.float32).settings for name, make in factories.items()}
        sources = source_digests(*kinds, check_gradients, run_chain, Chain, Purifier)
        return LoadedChecks(
            settings={
                "verb": self.verb,
                "dataset": str(self.dataset),
                **({} if digest is None else {"images": digest}),
                "n": self.n,
                "directions": self.directions,
                "purifiers": described,
                "bounds": dataclasses.asdict(Bounds()),
                "randomness": {"seed": self.seed, "scheme": self.scheme},
                "sources": sources,
            },
            context=collect_context(dtype="float64", sources=sources),
            factories=factories,
            xi=RandomnessConfig(self.seed, self.scheme),
        )

    def total(self, loaded: LoadedChecks) -> int:
        """Return the number of purifiers."""
        return len(loaded.factories)

    def cost(self, loaded: LoadedChecks) -> Cost:
        """Estimate the cost of all checks, of differences at every step size that kinks ask for.

        Timed in float32; float64 takes about twice the time.
        """
        images, passes = load_images(self.dataset, n=self.n).images, most_passes(self.directions)
        costs = [
            estimate(make(torch.float32).at(xi=loaded.xi), images, self.n, *passes)
            for make in loaded.factories.values()
        ]
        return Cost(
            images=self.n,
            evaluations=sum(cost.evaluations for cost in costs),
            backwards=sum(cost.backwards for cost in costs),
            seconds=2 * sum(cost.seconds for cost in costs),
            peak_memory=max(cost.peak_memory for cost in costs),
        )

    def measure(self, session: Session[LoadedChecks]) -> None:
        """Check purifier after purifier."""
        store, loaded = session.store, session.loaded
        done = {name for (name,) in store.done(PURIFIER.table)}
        session.progress(len(done))
        for name in [each for each in loaded.factories if each not in done]:
            (check,) = check_gradients(
                loaded.factories[name],
                self.dataset,
                n=self.n,
                directions=self.directions,
                xi=loaded.xi,
            )
            values = {key: getattr(check, key) for key in PURIFIER.values}
            kinds = {kind: getattr(check, kind) for kind in CHECKS}
            with store.batch():
                store.append(PURIFIER.table, [{"defense": name, **values}])
                store.append(
                    AGREEMENT.table,
                    [
                        {"defense": name, "kind": kind, **dataclasses.asdict(each)}
                        for kind, each in kinds.items()
                        if each is not None
                    ],
                )
            done.add(name)
            session.progress(len(done))

    @classmethod
    def report(cls, store: RecordStore) -> CheckGradReport:
        """Read the checks of a run, in the order in which they were asked for."""
        agreements: dict[str, dict[str, Agreement]] = {}
        for row in store.rows(AGREEMENT.table):
            agreement = Agreement(error=row["error"], cosine=row["cosine"])
            agreements.setdefault(row["defense"], {})[row["kind"]] = agreement
        asked = {row["defense"]: row for row in store.rows(PURIFIER.table)}
        bounds = Bounds(**store.settings["bounds"])
        return CheckGradReport(
            run=store.folder,
            settings=store.settings,
            checks=tuple(
                GradientCheck(
                    **asked[name],
                    **{kind: agreements[name].get(kind) for kind in CHECKS},  # type: ignore[arg-type]
                    bounds=bounds,
                )
                for name in store.settings["purifiers"]
                if name in asked
            ),
        )
