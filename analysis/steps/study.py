"""The compression of every step as a study."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from advpure.analysis.compression.infinitesimal import push_forward
from advpure.analysis.compression.noising import default_strength
from advpure.analysis.metrics.references import AUTO, NONE, choose_reference, load_reference
from advpure.analysis.steps.divergence import trace_probes
from advpure.analysis.steps.lanczos import LanczosSettings, lanczos
from advpure.analysis.steps.manifold import ManifoldSettings, local_spans
from advpure.analysis.steps.rates import describe_steps, step_rows
from advpure.analysis.steps.report import StepsReport
from advpure.analysis.steps.result import STEP_CHAIN, STEP_PROBES, STEP_RATES
from advpure.analysis.steps.settings import StepSettings, describe_chain
from advpure.analysis.steps.singular import SingularSettings, describe_singular, singular_rows
from advpure.analysis.steps.singular_result import SINGULAR, SPECTRA, singular_records
from advpure.analysis.steps.trajectories import Trajectories
from advpure.analysis.study import Columns, LoadedModel, PurifierStudy, Session
from advpure.base.flags import Flag
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Share, Strength, Whole
from advpure.base.units import to_model
from advpure.base.validation import fields_of
from advpure.core.chain import Noise
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.runs.cost import Cost, peak_memory
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema

PARTS = 100
"""Units of progress of one image."""


@dataclass(frozen=True, kw_only=True)
class LoadedSteps(LoadedModel):
    """A run that is checked and loaded.

    Attributes:
        eps: Strength of the perturbations in [0, 1] units, e.g. 8/255. Default: the data set's
            radius.
        reference: Images that span the data, [N, C, H, W]; None without them.
    """

    reference: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Steps(StepSettings, ManifoldSettings, PurifierStudy[StepsReport]):
    """Print the compression of every step, measured and predicted from the noise prediction.

    A prediction needs steps of the form kappa (x - gamma epsilon(x)) + noise; other steps are
    measured alone.

    Example: advpure steps --defense ddim --t 50 --singular 3 --plot steps.png

    Attributes:
        n: Images, 1 or more; 0 for all. Default: 10, or all of a subset that is given.
        reference: Images that span the data: auto, none or a subset, e.g. train/first-5000.
        singular: Leading singular values of the whole chain; 0 for none, e.g. 5.
        singular_basis: Most products with the Jacobian, and with its transpose.
        singular_tolerance: Residual at which to stop, share of the largest.
    """

    verb: ClassVar[str] = "steps"
    doing: ClassVar[str] = "measuring steps"
    shorter: ClassVar[str] = "-n, --probes, --directions or --every"
    tables: ClassVar[tuple[Schema, ...]] = (STEP_RATES, STEP_PROBES, STEP_CHAIN, SINGULAR, SPECTRA)
    joint_figure: ClassVar[str] = "advpure.analysis.steps.figure:draw_steps"
    columns: ClassVar[Columns] = {"compression rate": {"at": "whole.measured"}}
    sources: ClassVar[tuple[object, ...]] = (Trajectories, trace_probes, lanczos)
    first: ClassVar[int] = 10

    defense: Annotated[str, Flag("--defense", "-d")] = "ddpm"
    eps: Strength | None = None  # type: ignore[assignment]
    reference: str = AUTO
    singular: Whole = 0
    singular_basis: Natural = LanczosSettings.basis
    singular_tolerance: Share = LanczosSettings.tolerance

    def __post_init__(self) -> None:
        """Check every field, and refuse what changes nothing beside the others."""
        if self.eps is None:
            object.__setattr__(self, "eps", default_strength(self.dataset))
        StepSettings.__post_init__(self)
        ManifoldSettings.__post_init__(self)
        PurifierStudy.__post_init__(self)
        self.spectrum()
        if not self.singular:
            rule = "means nothing without singular values"
            names = ("singular_basis", "singular_tolerance")
            refuse_idle(self, names, rule, "add singular 5, or leave it out")
        if self.reference == NONE:
            rule = "means nothing without reference images"
            refuse_idle(self, ("span", "neighbours", "components", "directions"), rule)
        if self.span == "differences":
            rule = "means nothing to differences, which go to as many images as components"
            refuse_idle(self, ["neighbours"], rule)

    def spectrum(self) -> SingularSettings | None:
        """Return which singular values to find, None for none."""
        if not self.singular:
            return None
        return SingularSettings(
            count=self.singular,
            basis=self.singular_basis,
            tolerance=self.singular_tolerance,
            probes=self.probes,
            seed=self.seed,
        )

    def load(self) -> LoadedSteps:
        """Load the purifier, its images and those that span the data."""
        subset = choose_reference(self.dataset, self.reference)
        loaded = super().load()
        reference = None if subset is None else load_reference(self.dataset, subset)
        return LoadedSteps(**fields_of(LoadedModel, loaded), reference=reference)

    def describe(self, model: Purifier, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what the rows depend on, as JSON values."""
        spectrum = self.spectrum()
        return {
            **describe_steps(model, images.images, self, xi),
            **fields_of(ManifoldSettings, self),
            "reference": choose_reference(self.dataset, self.reference),
            **({"singular": 0} if spectrum is None else describe_singular(spectrum)),
        }

    def total(self, loaded: LoadedModel) -> int:
        """Return the hundredths of images; the steps of all come first, then singular values."""
        return len(loaded.images.ids) * PARTS * (2 if self.singular else 1)

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost: counted evaluations, calibrated seconds and memory.

        One tile through the first step with a network is timed, plainly and with its derivative,
        and stands for all; products with the whole chain's Jacobian count as derivatives of all
        steps.
        """
        assert isinstance(loaded, LoadedSteps)
        chain, n = loaded.purifier.chain, len(loaded.images.ids)
        infos = describe_chain(chain, self.every)
        selected = sum(chain[info.step].evaluations for info in infos if info.selected)
        sides = 0 if loaded.reference is None else 2 * self.directions
        tile = loaded.purifier.tile or min(n, 8)
        plain, derived = _calibrate(loaded, tile)

        def tiles(each: int, images: int = n) -> int:
            return -(-images * each // tile)

        group = min(n, max(1, max(64, tile) // (1 + self.probes + sides)))
        batches, line = -(-n // group), self.probes + sides + (self.every == 1)
        forwards = chain.evaluations * (1 + self.perturbations) + selected * self.probes
        backwards = selected * (self.probes + line)
        moved = chain.evaluations * tiles(1 + self.perturbations, group)
        probed = tiles(self.probes, group)
        seconds = batches * (
            plain * (moved + selected * probed) + derived * selected * (probed + tiles(line, group))
        )
        spectrum = self.spectrum()
        if spectrum is not None:
            products = 2 * (spectrum.basis + spectrum.count)
            backwards += chain.evaluations * (products + spectrum.probes)
            passes = products / spectrum.block * tiles(spectrum.block) + tiles(spectrum.probes)
            seconds += derived * chain.evaluations * passes
        memory = peak_memory(loaded.images.images.device)
        return Cost(n, n * (forwards + backwards), n * backwards, seconds, memory)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Follow all images through the steps, then find singular values."""
        loaded, store = session.loaded, session.store
        assert isinstance(loaded, LoadedSteps)
        x, ids = loaded.images.images, loaded.images.ids
        chain, count = loaded.purifier.chain, len(ids)
        indices = {i: k for k, i in enumerate(ids.tolist())}
        stepped = (
            {i for (i,) in store.done(STEP_RATES.table, "sample")} if len(chain) else {*indices}
        )
        spectrum = self.spectrum()
        solved = {i for (i,) in store.done(SPECTRA.table)} if spectrum else {*indices}
        session.progress(PARTS * (len(stepped) + (len(solved) if spectrum else 0)))
        if len(stepped) == len(solved) == count:
            return
        spans = None if loaded.reference is None else local_spans(x, loaded.reference, self)
        infos = describe_chain(chain, self.every)
        store.append(STEP_CHAIN.table, [info._asdict() for info in infos])
        for batch in step_rows(
            loaded.purifier,
            x,
            ids,
            self,
            spans=spans,
            xi=loaded.xi,
            batch_size=session.batch_size,
            skip=stepped,
            progress=lambda done: session.progress(int(PARTS * done)),
        ):
            with store.batch():
                store.append(STEP_PROBES.table, [row._asdict() for row in batch.probes])
                store.append(STEP_RATES.table, [row._asdict() for row in batch.rates])
        if spectrum is None:
            return
        for each in singular_rows(
            loaded.purifier,
            x,
            ids,
            spectrum,
            xi=loaded.xi,
            batch_size=session.batch_size,
            skip=solved,
            progress=lambda done: session.progress(int(PARTS * (count + done))),
        ):
            span = None if spans is None else spans[indices[each.id]]
            values, summary = singular_records(each, span)
            with store.batch():
                store.append(SINGULAR.table, values)
                store.put_blob(f"right/{each.id}", each.right)
                store.put_blob(f"left/{each.id}", each.left)
                store.append(SPECTRA.table, [summary])

    @classmethod
    def report(cls, store: RecordStore) -> StepsReport:
        """Compute the report of a run from its records alone."""
        return StepsReport.of(store)


def _calibrate(loaded: LoadedSteps, tile: int) -> tuple[float, float]:
    """Return seconds of one tile through a step with a network, plainly and with a derivative."""
    step = next((s for s in loaded.purifier.chain if s.evaluations), None)
    if step is None:
        return 0.0, 0.0
    x = loaded.images.images
    x = to_model(x[torch.arange(tile, dtype=torch.int64, device="cpu") % len(x)])
    noise = Noise(loaded.xi, torch.arange(tile, dtype=torch.int64, device="cpu"))

    def move(state: Tensor) -> Tensor:
        return step.move(state, noise.of(step, state)) / step.evaluations

    with torch.no_grad():  # a timing
        plain = _timed(lambda: move(x))
    return plain / step.evaluations, _timed(lambda: push_forward(move, x, x)) / step.evaluations


def _timed(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
