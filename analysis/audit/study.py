"""``advpure audit``: a run, or a defense from nothing, against the guidelines.

Records are read first. What they do not say is probed on a few images, within a stated number of
passes an image: the checks in the order of their registry, as far as the passes reach. A check is a
unit of work, so an audit that was stopped goes on with the next one; verdicts are computed from
what was measured.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import CellType, FunctionType
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from advpure.analysis.audit.attempts import own_cost
from advpure.analysis.audit.check import Check, Finding, Measured, Value, open_question
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.audit.faults import is_about_faults
from advpure.analysis.audit.recorded import Recorded
from advpure.analysis.audit.registry import CHECKS, checks
from advpure.analysis.audit.report import AuditReport
from advpure.analysis.robustness.protocol import ADVERSARIAL, ATTACKS
from advpure.analysis.robustness.settings import RobustnessSettings
from advpure.analysis.robustness.study import LoadedRobustness, Robustness
from advpure.analysis.study import Loaded, Session, Study
from advpure.analysis.subject import Seeded
from advpure.attacks.outcome import ZeroGradientWarning
from advpure.base.errors import BadInput, ModelFault
from advpure.base.flags import Beside, Positional, Repeats
from advpure.base.idle import refuse_idle
from advpure.base.imports import imported_anew, names_code, untrusted
from advpure.base.kinds import Natural
from advpure.core.defense import Defense
from advpure.data import Images
from advpure.data.base import Split
from advpure.data.registry import find_dataset, images_at
from advpure.runs.cost import Cost, estimate
from advpure.runs.header import canonical_json, collect_context
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Schema

CHECKED = Schema(
    "checked", {"check": str}, {"forwards": Count, "backwards": Count, "open": str, "fault": str}
)
"""Checks that were made, what they took, why one was not measured, and a flaw of the model."""

NUMBERS = Schema("numbers", {"check": str, "name": str, "image": int}, {"value": float})
"""What was measured; image -1 stands for a number of no image."""

EVALUATION = "evaluation"
"""In the place of a check: the evaluation that an audit makes itself."""
_SHARED = (*(each.name for each in fields(RobustnessSettings)), "seed")
"""Settings of the evaluation that an audit makes itself."""
_TOGETHER, _LEAST, _OF_RUN = 840, 440, 800
"""Passes of one image: of evaluation and probes together, which is half of what the README's first
run may take, 20 images of 2000 evaluations; of the probes at least; and of those of a run."""
_TIMES = 3
"""Images that an evaluation left out, for each that probes are made on."""
_BUDGET = 400
"""Passes an image of the standard attack in an evaluation that an audit makes."""


@dataclass(frozen=True, kw_only=True)
class LoadedAudit(Loaded):
    """What is audited.

    Attributes:
        folder: The run; None for an evaluation that is still to be made.
        study: How it was, or will be, made; None where the records do not say.
        pristine: The same, with copies of objects that nothing has asked yet.
        loaded: Its defense; None where records alone are read.
        fault: A flaw for which the model is refused.
        refused: Why the defense cannot be loaded, in words.
        verb: ``attack`` or ``certify``.
        evaluation: Its settings.
    """

    folder: Path | None
    study: Robustness | None
    pristine: Robustness | None
    loaded: LoadedRobustness | None
    fault: str
    refused: str
    verb: str
    evaluation: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Audit(RobustnessSettings, Seeded, Study[LoadedAudit, AuditReport]):
    """Check an evaluation against the guidelines: pass, fail or inconclusive, with the number.

    Give a run, or a defense, which is then attacked first. The exit code is 1 when a check fails.

    Example: advpure audit --dataset digits --defense cm --fix-random

    Attributes:
        run_folder: Run of attack or certify. Default: an evaluation of the defense is made first.
        images: Images that probes are made on, at most, spread over those of the run.
        passes: Passes through the defense for one image that probes may take. Default: 840 with the
            evaluation, 440 or more; of a run 800.
        thorough: Make every check, whatever it takes.
        only: Make this check alone; repeats. `docs/audit.md` lists them.
        trust: Run code that the records name, such as file.py:Purifier.
    """

    verb: ClassVar[str] = "audit"
    doing: ClassVar[str] = "checking"
    tables: ClassVar[tuple[Schema, ...]] = (CHECKED, NUMBERS)
    figure: ClassVar[str] = "advpure.analysis.audit.figure:audit_figure"
    of_defense: ClassVar[bool] = True
    first: ClassVar[int] = 24
    unused: ClassVar[Mapping[str, str]] = {
        "precision": "leave it out: the tolerances of the checks are those of float32"
    }

    run_folder: Annotated[str | None, Positional()] = None
    images: Natural = 24
    passes: Natural | None = None
    thorough: bool = False
    only: Annotated[tuple[str, ...], Repeats()] = ()
    trust: Annotated[bool, Beside()] = False

    def __post_init__(self) -> None:
        """Check every field, and refuse what says of a run how it was made."""
        super().__post_init__()
        for name in self.only:
            CHECKS.get(name)
            if self.only.count(name) > 1:
                raise BadInput(f"check {name}", "is given twice", "keep one of them")
        if self.seconds is not None:
            rule = "is a time, by which no probe is measured"
            raise BadInput(f"budget {self.budget}", rule, "give evaluations, such as 500")
        if self.thorough:
            rule = "means nothing to a thorough audit, which makes every check"
            refuse_idle(self, ("passes",), rule)
        if self.run_folder is not None:
            names = [*_SHARED]
            refuse_idle(self, names, f"is said by the records of {self.run_folder}")

    def load(self) -> LoadedAudit:
        """Read the run and load its defense, or load the defense of an evaluation to be made."""
        if self.run_folder is None:
            return self._from_nothing()
        folder = Path(self.run_folder)
        with RecordStore.read(folder) as store:
            recorded = Recorded.read(store)
            if recorded.verb not in ("attack", "certify"):
                rule = f"is a run of {recorded.verb}, which claims no robustness"
                raise BadInput(str(folder), rule, "name a run of attack or certify")
            if not recorded.samples:
                raise BadInput(str(folder), "has no rows yet", "run its command again")
            study, loaded, fault, refused = None, None, "", ""
            described = recorded.settings.get("defense")
            if isinstance(described, Mapping) and "precision" in described:
                rule = f"is a run in {described['precision']}, the tolerances of the checks are not"
                raise BadInput(str(folder), rule, "audit a run of the same defense in float32")
            if recorded.verb == "attack":
                try:
                    with untrusted(self.trust):
                        study = Robustness.recorded(store)
                        loaded = study.load()
                except ModelFault as error:
                    fault, refused = error.fault, str(error)
                except BadInput as error:
                    refused = str(error)
            run = store.run
        return self._loaded(
            of=str(folder),
            run=run,
            folder=folder,
            study=study,
            pristine=study,
            loaded=loaded,
            fault=fault,
            refused=refused,
            verb=recorded.verb,
            evaluation=recorded.settings,
        )

    def _from_nothing(self) -> LoadedAudit:
        shared = {name: getattr(self, name) for name in _SHARED}
        study = Robustness(**{**shared, "n": self.count, "keep_images": True})
        pristine = _copied(study)
        if study.attack_name == "standard" and "budget" not in study.all_attack_options:
            study = replace(study, budget=_BUDGET)
        loaded, fault, refused = None, "", ""
        try:
            loaded = study.load()
        except ModelFault as error:
            fault, refused = error.fault, str(error)
        return self._loaded(
            of=f"{self.dataset}, defense {_name(self.defense)}",
            run="",
            folder=None,
            study=study,
            pristine=pristine,
            loaded=loaded,
            fault=fault,
            refused=refused,
            verb="attack",
            evaluation={} if loaded is None else loaded.settings,
        )

    def _loaded(
        self, *, of: str, run: str, evaluation: Mapping[str, Any], **parts: Any
    ) -> LoadedAudit:
        """Return what is audited, with the settings that identify the audit."""
        loaded = parts["loaded"]
        settings = {
            "verb": self.verb,
            "of": of,
            "run": run,
            "n": evaluation.get("n", 0),
            "images": self.images,
            "passes": self._most(evaluation),
            "thorough": self.thorough,
            "only": list(self.only),
            "fault": parts["fault"],
            "defense": _name(self.defense) if not evaluation else evaluation.get("defense"),
            "evaluation": dict(evaluation),
        }
        canonical_json(settings)
        context = collect_context(device=self.device, tile=None, weights={}, sources={})
        return LoadedAudit(
            settings=settings,
            context=context if loaded is None else loaded.context,
            samples=None,
            evaluation=evaluation,
            **parts,
        )

    def _probed(self, evaluation: Mapping[str, Any]) -> int:
        """Return on how many images probes are made, at most."""
        return min(self.images, int(evaluation["n"]))

    def _most(self, evaluation: Mapping[str, Any]) -> int:
        """Return the passes for one image that probes may take."""
        if self.passes is not None or self.run_folder is not None or not evaluation:
            return self.passes or _OF_RUN
        return max(_TOGETHER - own_cost(evaluation), _LEAST)

    def total(self, loaded: LoadedAudit) -> int:
        """Return the number of checks."""
        return len(list(self._planned(loaded)))

    def cost(self, loaded: LoadedAudit) -> Cost:
        """Estimate the cost of the probes, and of the evaluation where there is none yet."""
        if loaded.loaded is None:
            return Cost(0, 0, 0, 0.0, 0)
        settings = loaded.evaluation
        count = self._probed(settings)
        passes = sum(
            check.price(_priced(loaded), count) for check, why in self._planned(loaded) if not why
        )
        own = 0
        if loaded.folder is None:
            own = loaded.loaded.attack_settings.most_passes.forwards
            own += 3 * loaded.loaded.decisions.draws + 1
        return estimate(
            loaded.loaded.defense.at(xi=loaded.loaded.xi),
            loaded.loaded.images.images[:8],
            count,
            passes + own,
            (passes + own) // 2,
        )

    def measure(self, session: Session[LoadedAudit]) -> None:
        """Make the evaluation where there is none, then every check that has no row yet."""
        loaded, store = session.loaded, session.store
        done = {name for (name,) in store.done(CHECKED.table, "check")}
        fault = loaded.fault
        folder = loaded.folder
        if folder is None and not fault:
            folder, fault = self._evaluate(session, done)
        with _Records(folder if not fault else None) as records:
            evaluation = self._evaluation(loaded, records, fault)
            count = len(done - {EVALUATION})
            session.progress(count)
            for check, why in self._planned(loaded):
                if check.name in done:
                    continue
                self._make(check, why, evaluation, store)
                count += 1
                session.progress(count)

    def _evaluate(self, session: Session[LoadedAudit], done: set[str]) -> tuple[Path | None, str]:
        """Attack the defense within the folder of the audit; return where, and a flaw it has."""
        loaded, store = session.loaded, session.store
        assert loaded.study is not None
        folder, fault = store.folder / EVALUATION, ""
        if EVALUATION in done:
            (row,) = store.rows(CHECKED.table, {"check": EVALUATION})
            return folder, row["fault"]
        try:
            loaded.study.run(out=folder, batch_size=session.batch_size, loaded=loaded.loaded)
        except ModelFault as error:
            fault = error.fault
        with RecordStore.read(folder) as run:
            rows = run.rows(ATTACKS.table)
        row = _row(EVALUATION, fault=fault)
        for name in ("forwards", "backwards"):
            row[name] = sum(each[name] for each in rows)
        store.append(CHECKED.table, [row])
        return folder, fault

    def _evaluation(self, loaded: LoadedAudit, records: "_Records", fault: str) -> Evaluation:
        """Return what the checks ask."""
        recorded = records.recorded or Recorded(verb=loaded.verb, settings=loaded.evaluation)
        images = None
        if loaded.loaded is not None and recorded.samples:
            images = _spread(loaded.loaded.images, recorded.samples, self.images)
        return Evaluation(
            recorded=recorded,
            loaded=loaded.loaded,
            images=images,
            kept=records.kept,
            fault=fault,
            renew=self._renewing(loaded),
            others=lambda: _others(
                loaded, recorded.samples, _TIMES * len(images.ids) if images else 0
            ),
        )

    def _renewing(self, loaded: LoadedAudit) -> Callable[[], Defense] | None:
        """Return how to make the defense again, None for one of shipped parts, without a memory."""
        study = loaded.pristine
        if study is None or loaded.loaded is None or not _own_parts(study):
            return None

        def renew() -> Defense:
            trusted = self.trust or loaded.folder is None
            with imported_anew(), untrusted(trusted), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it was loaded before, which said so
                return _copied(study).load_defense(study.xi)

        return renew

    def _planned(self, loaded: LoadedAudit) -> Iterator[tuple[Check, str]]:
        """Yield the checks that mean something, with why one is not made."""
        if not loaded.evaluation:
            yield from ((check, "") for check in checks_of_faults())
            return
        spent = 0
        for check in checks(loaded.evaluation, verb=loaded.verb, only=self.only):
            price = check.price(_priced(loaded), self._probed(loaded.evaluation))
            if not check.is_free and loaded.loaded is None:
                yield check, loaded.refused or "the records do not say how the run was made"
            elif check.thorough and not self.thorough:
                yield check, f"takes {price:,} passes an image: --thorough makes it"
            elif not self.thorough and spent + price > self._most(loaded.evaluation):
                yield check, f"takes {price:,} passes an image more: --passes or --thorough"
            else:
                spent += price
                yield check, ""

    def _make(self, check: Check, why: str, evaluation: Evaluation, store: RecordStore) -> None:
        """Make a check, and store what it measured."""
        forwards, backwards = evaluation.forwards, evaluation.backwards
        values: Sequence[Value] = ()
        if evaluation.fault and not is_about_faults(check):
            why = "the model was refused: mend it first"
        if not why:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ZeroGradientWarning)  # a check says so
                    values = list(check.measure(evaluation))
            except BadInput as error:
                why = str(error)
        row = _row(check.name, why=why)
        row["forwards"] = evaluation.forwards - forwards
        row["backwards"] = evaluation.backwards - backwards
        with store.batch():
            store.append(
                NUMBERS.table,
                [
                    {"check": check.name, "name": name, "image": image, "value": float(value)}
                    for name, image, value in values
                ],
            )
            store.append(CHECKED.table, [row])

    @classmethod
    def report(cls, store: RecordStore) -> AuditReport:
        """Compute the verdicts from what was measured."""
        settings = store.settings
        rows = {row["check"]: row for row in store.rows(CHECKED.table)}
        numbers: dict[str, list[Value]] = {}
        for row in store.rows(NUMBERS.table):
            value = Value(row["name"], row["image"], row["value"])
            numbers.setdefault(row["check"], []).append(value)
        verb = (settings["evaluation"] or {}).get("verb", "attack")
        known = list(checks_of_faults())
        if settings["evaluation"]:
            known = list(checks(settings["evaluation"], verb=verb, only=settings["only"]))
        findings = {
            check: _finding(check, rows[check.name], numbers.get(check.name, []), settings)
            for check in known
            if check.name in rows
        }
        return AuditReport(
            run=store.folder,
            settings=settings,
            findings=findings,
            passes=sum(row["forwards"] for row in rows.values()),
        ).with_notes(*_notes(len(findings), len(known)))


def checks_of_faults() -> Iterator[Check]:
    """Yield the checks of a model that was refused before an evaluation had settings."""
    for name in CHECKS.names():
        check = CHECKS.get(name)
        if is_about_faults(check):
            yield check


def _notes(done: int, known: int) -> Iterator[str]:
    if done < known:
        yield f"{done} of {known} checks are made; the same command goes on"


def _finding(
    check: Check, row: Mapping[str, Any], values: Sequence[Value], settings: Mapping[str, Any]
) -> Finding:
    if row["open"]:
        return open_question(f"not measured: {row['open']}")
    return check.finding(Measured(values), settings["evaluation"])


def _priced(loaded: LoadedAudit) -> Mapping[str, Any]:
    """Return the settings of an evaluation, with whether its images are kept."""
    return {**loaded.evaluation, "kept": loaded.folder is None}


_PARTS = ("defense", "classifier", "denoiser", "boost")


def _own_parts(study: Robustness) -> list[str]:
    """Return the parts of a defense that are somebody's code."""
    parts = {name: getattr(study, name) for name in _PARTS}
    return [
        name
        for name, part in parts.items()
        if part is not None and (not isinstance(part, str) or names_code(part))
    ]


def _copied(study: Robustness) -> Robustness:
    """Return a study with copies of the objects of its defense, where they can be copied."""
    copies = {}
    for name in _own_parts(study):
        part = getattr(study, name)
        if not isinstance(part, str):
            try:
                copies[name] = _copy(part)
            except Exception:  # somebody's object may hold anything
                continue
    return replace(study, **copies) if copies else study


def _copy(part: Any) -> Any:
    """Return a copy of an object, of a function with what it holds and the globals it changes."""
    if not isinstance(part, FunctionType):
        return copy.deepcopy(part)
    holds = tuple(CellType(_copy(each.cell_contents)) for each in part.__closure__ or ())
    names = {*part.__code__.co_names} & {*part.__globals__}
    own = {name: part.__globals__[name] for name in names}
    changed = {name: copy.deepcopy(v) for name, v in own.items() if isinstance(v, _CHANGING)}
    known = {**part.__globals__, **changed}
    return FunctionType(part.__code__, known, part.__name__, part.__defaults__, holds)


_CHANGING = (list, dict, set, Tensor)


def _others(loaded: LoadedAudit, used: Sequence[int], count: int) -> Images | None:
    """Return images of the split of a run, spread over it, that the run did not take."""
    assert loaded.study is not None
    source = find_dataset(loaded.study.dataset)
    split: Split = "train" if loaded.evaluation["subset"].partition("/")[0] == "train" else "test"
    size = (source.sizes() if source.sizes is not None else source.info.splits)[split]
    places = torch.arange(size, dtype=torch.int64, device="cpu")
    ids = places if source.ids is None else source.ids
    free = places[~torch.isin(ids, torch.tensor(used))]
    count = min(count, len(free))
    if not count:
        return None
    chosen = [int(free[k * len(free) // count]) for k in range(count)]
    return images_at(source, split, torch.tensor(chosen))


def _row(check: str, why: str = "", fault: str = "") -> dict[str, Any]:
    return {"check": check, "forwards": 0, "backwards": 0, "open": why, "fault": fault}


def _name(defense: Any) -> str:
    return defense if isinstance(defense, str) else getattr(defense, "__name__", "an object")


def _spread(images: Images, samples: Sequence[int], count: int) -> Images:
    """Return at most `count` of the images that have rows, spread over them."""
    known = set(samples)
    there = [k for k, i in enumerate(images.ids.tolist()) if i in known]
    count = min(count, len(there))
    chosen = [there[k * len(there) // count] for k in range(count)]
    return Images(*(part[chosen] for part in images))


@dataclass
class _Records:
    """The records of an evaluation, open while checks are made."""

    folder: Path | None
    recorded: Recorded | None = field(default=None, init=False)
    _store: RecordStore | None = field(default=None, init=False)

    def __enter__(self) -> "_Records":
        if self.folder is not None:
            self._store = RecordStore.read(self.folder)
            self.recorded = Recorded.read(self._store)
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def kept(self, sample: int) -> Tensor | None:
        """Return the adversarial image that the run kept, None where it kept none."""
        name = f"{ADVERSARIAL}/{sample}"
        if self._store is None or name not in self._names:
            return None
        return self._store.get_blob(name)

    @property
    def _names(self) -> set[str]:
        assert self._store is not None
        if not hasattr(self, "_listed"):
            self._listed = set(self._store.blobs())
        return self._listed
