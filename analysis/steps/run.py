"""One recorded run over the steps of a chain: by name, resumable, reported from its records."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.compression.infinitesimal import push_forward
from advpure.analysis.metrics.references import AUTO, NONE, choose_reference, load_reference
from advpure.analysis.perturbations import Distribution
from advpure.analysis.runs import Verb
from advpure.analysis.steps.divergence import Method, trace_probes
from advpure.analysis.steps.lanczos import LanczosSettings, lanczos
from advpure.analysis.steps.manifold import ManifoldSettings, Span, local_spans
from advpure.analysis.steps.rates import describe_steps, step_rows
from advpure.analysis.steps.report import StepsReport, report_steps
from advpure.analysis.steps.result import STEP_CHAIN, STEP_PROBES, STEP_RATES
from advpure.analysis.steps.settings import StepSettings, describe_chain
from advpure.analysis.steps.singular import SingularSettings, describe_singular, singular_rows
from advpure.analysis.steps.singular_result import SINGULAR, SPECTRA, singular_records
from advpure.analysis.steps.walk import Walk
from advpure.analysis.subject import Subject
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Seed, Share, Strength, Whole
from advpure.base.units import to_model
from advpure.core.chain import Noise
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.runs.cost import Cost, peak_memory
from advpure.runs.records import RecordStore, default_run_folder

PARTS = 100
"""Units of progress of one image."""


@dataclass(frozen=True, kw_only=True)
class StepsRun(Subject):
    """Everything that a run over steps depends on, beside its subject.

    Attributes:
        eps: Strength of the perturbations, [0, 1] units, such as ``8/255``.
        distribution: ``uniform``, ``gaussian`` or ``sign``.
        perturbations: Perturbations whose transport is followed, per image.
        probes: Probes and fresh perturbations at every step.
        directions: Directions along the data, and as many across it, at every step.
        method: Derivatives of the probes, ``vjp`` or ``jvp``.
        every: Derivatives at every so many-th step with a network.
        reference: Images that directions along the data are made from: a subset, ``auto`` or
            ``none``.
        span: ``principal`` or ``differences``.
        neighbours: Nearest reference images.
        components: Dimension of the span along the data.
        singular: Leading singular values of the whole chain; 0 for none.
        singular_basis: Most products with the Jacobian, and as many with its transpose.
        singular_tolerance: Relative residual at which to stop.
        seed: Base seed of all randomness.
    """

    eps: Strength = "8/255"
    distribution: Distribution = "uniform"
    perturbations: Natural = 4
    probes: Natural = 8
    directions: Natural = 3
    method: Method = "vjp"
    every: Natural = 1
    reference: str = AUTO
    span: Span = "principal"
    neighbours: Natural = 50
    components: Natural = 10
    singular: Whole = 0
    singular_basis: Natural = 60
    singular_tolerance: Share = 1e-3
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check every field, and refuse what changes nothing beside the others."""
        super().__post_init__()
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


@dataclass(frozen=True)
class PreparedSteps:
    """A run that is checked and loaded, and has computed nothing yet."""

    purifier: Purifier
    images: Images
    measure: StepSettings
    manifold: ManifoldSettings
    singular: SingularSettings | None
    reference: Tensor | None
    xi: RandomnessConfig
    settings: dict[str, Any]

    @property
    def total(self) -> int:
        """Units of progress of the whole run."""
        return len(self.images.ids) * PARTS * (1 if self.singular is None else 2)


def prepare_steps(run: StepsRun) -> PreparedSteps:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    measure = StepSettings(
        eps=run.eps, distribution=run.distribution, perturbations=run.perturbations,
        probes=run.probes, directions=run.directions, method=run.method, every=run.every,
        seed=run.seed,
    )  # fmt: skip
    manifold = ManifoldSettings(span=run.span, neighbours=run.neighbours, components=run.components)
    singular = _singular(run)
    subset = choose_reference(run.dataset, run.reference)
    xi = RandomnessConfig(run.seed, run.scheme)
    purifier = run.load_purifier(xi)
    images = run.load_images()
    reference = None if subset is None else load_reference(run.dataset, subset)
    settings = {
        **run.identity("steps", images),
        **describe_steps(purifier, images.images, measure, xi),
        "reference": subset, "span": run.span, "neighbours": run.neighbours,
        "components": run.components,
        **({"singular": 0} if singular is None else describe_singular(singular)),
    }  # fmt: skip
    return PreparedSteps(purifier, images, measure, manifold, singular, reference, xi, settings)


def _singular(run: StepsRun) -> SingularSettings | None:
    if not run.singular:
        return None
    own = LanczosSettings(
        count=run.singular, basis=run.singular_basis, tolerance=run.singular_tolerance
    )
    return SingularSettings(lanczos=own, probes=run.probes, seed=run.seed)


def measure_steps(
    run: StepsRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> StepsReport:
    """Measure the compression of every step, resuming a run that was interrupted.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Rows in memory at once; a matter of memory only.
        progress: Called with the number of finished hundredths of images; the steps of all images
            come first, then singular values.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, a run folder of other settings, or a step
            without a derivative.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_steps(run)
    folder = Path(out) if out else default_run_folder("runs", "steps", prepared.settings)
    context = run.context(prepared.purifier, prepared.settings, Walk, trace_probes, lanczos)
    start = time.perf_counter()
    schemas = (STEP_RATES, STEP_PROBES, STEP_CHAIN, SINGULAR, SPECTRA)
    with RecordStore.open(
        folder,
        schemas=schemas,
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        earlier = store.finished
        worked = _record(store, prepared, batch_size, progress)
        store.finish()
        report = report_steps(store, time.perf_counter() - start)
    return report.already_complete() if earlier and not worked else report


def _record(
    store: RecordStore, prepared: PreparedSteps, batch_size: int | None,
    progress: Callable[[int], None],
) -> bool:  # fmt: skip
    """Measure and store what is not done; say whether there was anything."""
    x, ids = prepared.images.images, prepared.images.ids
    chain, count = prepared.purifier.chain, len(ids)
    walked = (
        {i for (i,) in store.done(STEP_RATES.table, "sample")} if len(chain) else {*ids.tolist()}
    )
    solved = {i for (i,) in store.done(SPECTRA.table)}
    missing = [k for k, i in enumerate(ids.tolist()) if i not in walked]
    unsolved = [] if prepared.singular is None else [i for i in ids.tolist() if i not in solved]
    progress(PARTS * (len(walked) + len(solved)))
    if not missing and not unsolved:
        return False
    spans = None
    if prepared.reference is not None:
        spans = local_spans(x, prepared.reference, prepared.manifold)
    infos = describe_chain(chain, prepared.measure.every)
    store.append(STEP_CHAIN.table, [info._asdict() for info in infos])
    for batch in step_rows(
        prepared.purifier, x, ids, prepared.measure, spans=spans, xi=prepared.xi,
        batch_size=batch_size, skip=walked, progress=lambda done: progress(int(PARTS * done)),
    ):  # fmt: skip
        with store.batch():
            store.append(STEP_PROBES.table, [row._asdict() for row in batch.probes])
            store.append(STEP_RATES.table, [row._asdict() for row in batch.rates])
    if prepared.singular is not None:
        places = {int(i): k for k, i in enumerate(ids)}
        for spectrum in singular_rows(
            prepared.purifier, x, ids, prepared.singular, xi=prepared.xi, batch_size=batch_size,
            skip=solved, progress=lambda done: progress(int(PARTS * (count + done))),
        ):  # fmt: skip
            span = None if spans is None else spans[places[spectrum.id]]
            values, summary = singular_records(spectrum, span)
            with store.batch():
                store.append(SINGULAR.table, values)
                store.put_blob(f"right/{spectrum.id}", spectrum.right)
                store.put_blob(f"left/{spectrum.id}", spectrum.left)
                store.append(SPECTRA.table, [summary])
    return True


def estimate_steps(prepared: PreparedSteps) -> Cost:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory.

    One tile through the first step with a network is timed, plainly and with its derivative, and
    stands for all; products with the whole chain's Jacobian count as derivatives of all steps.
    """
    chain, n, s = prepared.purifier.chain, len(prepared.images.ids), prepared.measure
    selected = sum(chain[i.step].evaluations for i in describe_chain(chain, s.every) if i.selected)
    sides = 0 if prepared.reference is None else 2 * s.directions
    tile = prepared.purifier.tile or min(n, 8)
    plain, derived = _calibrate(prepared, tile)

    def tiles(each: int, images: int = n) -> int:
        return -(-images * each // tile)

    group = min(n, max(1, max(64, tile) // (1 + s.probes + sides)))
    batches, line = -(-n // group), s.probes + sides + (s.every == 1)
    forwards = chain.evaluations * (1 + s.perturbations) + selected * s.probes
    backwards = selected * (s.probes + line)
    seconds = batches * (
        plain * (chain.evaluations * tiles(1 + s.perturbations, group)
                 + selected * tiles(s.probes, group))
        + derived * selected * (tiles(s.probes, group) + tiles(line, group))
    )  # fmt: skip
    if prepared.singular is not None:
        own, probes = prepared.singular.lanczos, prepared.singular.probes
        products = 2 * (own.basis + own.count)
        backwards += chain.evaluations * (products + probes)
        passes = products / own.block * tiles(own.block) + tiles(probes)
        seconds += derived * chain.evaluations * passes
    memory = peak_memory(prepared.images.images.device)
    return Cost(n, n * (forwards + backwards), n * backwards, seconds, memory)


def _calibrate(prepared: PreparedSteps, tile: int) -> tuple[float, float]:
    """Return seconds of one tile through a step with a network, plainly and with a derivative."""
    step = next((s for s in prepared.purifier.chain if s.evaluations), None)
    if step is None:
        return 0.0, 0.0
    x = prepared.images.images
    x = to_model(x[torch.arange(tile, dtype=torch.int64, device="cpu") % len(x)])
    noise = Noise(prepared.xi, torch.arange(tile, dtype=torch.int64, device="cpu"))

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


def _total(run: StepsRun) -> int:
    return len(run.load_images().ids) * PARTS * (2 if run.singular else 1)


VERB = Verb(
    StepsRun,
    measure_steps,
    total=_total,
    prepare=prepare_steps,
    estimate=estimate_steps,
    report=report_steps,
)
