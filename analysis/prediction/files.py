"""A prediction from runs that are there already: nothing is computed, no network is loaded.

Runs belong together when their records say the same of the purifier (name, strength, options,
weights), its base seed and the data set and, for the attack and the searches, of the classifier and
the norm. What is missing of a purifier is missing in its row; without a compression rate there is
no row.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.prediction.parts import (
    Radius,
    noise_strength,
    read_radii,
    read_rates,
    read_verdicts,
)
from advpure.analysis.prediction.predict import PredictionInput
from advpure.analysis.prediction.report import PredictionReport, make_report
from advpure.base.errors import BadInput
from advpure.base.imports import untrusted
from advpure.base.validation import Range, instance, listed, number
from advpure.runs.records import FILE_NAME, RecordStore, canonical_json

# What a defense's description says beyond its purifier.
_BESIDE = ("classifier", "gradient", "policy", "tile", "evaluations")
_SAME = 1e-9  # relative difference of two texts of one radius


class _Source(NamedTuple):
    """A run: what it can serve for, its settings and its folder."""

    kind: str
    settings: dict[str, Any]
    folder: Path

    @property
    def seed(self) -> int | None:
        """Base seed; None where nothing is random."""
        randomness = self.settings["randomness"]
        return None if randomness is None else int(randomness["seed"])

    @property
    def purifier(self) -> dict[str, Any]:
        """What says that two runs are about the same purifier."""
        described = {k: v for k, v in self.settings["defense"].items() if k not in _BESIDE}
        return {**described, "dataset": self.settings["dataset"]}

    @property
    def images(self) -> tuple[str, bool]:
        """Data set and split; within these an id means one image."""
        s = self.settings
        return s["dataset"], str(s["subset"]).partition("/")[0] == "train"

    @property
    def shared(self) -> tuple[Any, ...]:
        """What attack and searches must share: images, classifier and norm."""
        classifier = canonical_json(self.settings["defense"]["classifier"])
        return *self.images, classifier, self.settings["threat_model"]["norm"]


@dataclass
class _Group:
    """Runs about one purifier under one seed."""

    purifier: dict[str, Any]
    seed: int | None = None
    runs: dict[str, _Source] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        known = ((k, self.purifier.get(k)) for k in ("t", "sigma"))
        return str(self.purifier["purifier"]) + next((f", {k} = {v}" for k, v in known if v), "")

    def add(self, source: _Source) -> None:
        there = self.runs.setdefault(source.kind, source)
        if there is not source:
            raise BadInput(
                str(source.folder),
                f"is a second {source.kind} run of {self.label}, beside {there.folder}",
                "give one of them",
            )


def predict_from(folders: Sequence[str | Path], *, eps: float | None = None) -> PredictionReport:
    """Predict from the records of earlier runs.

    Args:
        folders: Run folders of `cr`, `survival` (the classifier at clean images; anchor points) and
            `attack`, in any order; folders of sweeps, for their finished points; or folders that
            hold run folders. Runs of other verbs, attacks under fresh randomness or of another
            radius, classifier or norm are passed over.
        eps: Radius of the attack; None for that of the attack runs.

    Returns:
        The report. Its `settings` name the folders of every row.

    Raises:
        BadInput: where there is no survival of the classifier, no compression rate, no radius, or
            two runs of one kind about one purifier.
    """
    if not listed(folders):
        raise BadInput("the list of runs", "is empty", "name run folders")
    for folder in listed(folders):
        instance(folder, (str, Path), "run", "name run folders")
    if eps is not None:
        eps = number(eps, "eps", Range(above=0))
    sources = list(_sources(listed(folders)))
    clean = _clean(sources)
    evaluated = [each for each in sources if each.kind in ("anchor", "attack")]
    fitting = [each for each in evaluated if each.shared == clean.shared]
    radius = _radius([each for each in fitting if each.kind == "attack"], eps)
    fitting = [each for each in fitting if each.kind == "anchor" or _is(_eps(each), radius)]
    groups = _groups(fitting)
    rates = [each for each in sources if each.kind == "cr" and each.images == clean.images]
    model = clean.settings["threat_model"]
    with untrusted():
        strength = noise_strength(radius, model["norm"], clean.settings["dataset"])
    notes = _join_rates(groups, rates, strength)
    if len(fitting) < len(evaluated):
        rest = len(evaluated) - len(fitting)
        notes.append(f"{rest} runs of another radius, data set, classifier or norm are passed over")
    notes += [
        f"{group.label} has no compression rate yet and is left out"
        for group in groups
        if not group.rates
    ]
    predicted = sorted((group for group in groups if group.rates), key=_order(groups))
    if not predicted:
        raise BadInput("these runs", "hold no compression rate", "add a run of advpure cr")
    attacks = [
        group.runs["attack"].settings["attack"] for group in predicted if "attack" in group.runs
    ]
    if any(each != attacks[0] for each in attacks):
        notes.append("the purifiers were not all attacked in the same way")
    described = {
        "verb": "predict",
        "dataset": clean.settings["dataset"],
        "threat_model": {"norm": model["norm"], "eps": radius},
        "attack": attacks[0] if attacks else None,
        "clean": str(clean.folder),
        "points": [
            {**group.purifier, **{kind: str(run.folder) for kind, run in group.runs.items()}}
            for group in predicted
        ],
    }
    known = [_setting(group, clean) for group in predicted]
    parent = Path(os.path.commonpath([each.folder.resolve() for each in sources]))
    return make_report(known, radius, run=parent, described=described, notes=notes)


def _sources(folders: Sequence[str | Path]) -> Iterator[_Source]:
    """Yield the runs that can serve, each once."""
    seen: set[Path] = set()
    for run in (inner for folder in folders for inner in _run_folders(Path(folder))):
        if run.resolve() in seen:
            continue
        seen.add(run.resolve())
        with RecordStore.read(run) as store:
            settings = store.settings
        kind = _kind(settings)
        if kind is not None:
            yield _Source(kind, settings, run)


def _run_folders(folder: Path) -> list[Path]:
    """Return the run folders that a folder stands for: itself, a sweep's points, or those in it."""
    if not (folder / FILE_NAME).is_file():
        return sorted(each.parent for each in folder.glob(f"*/{FILE_NAME}")) or [folder]
    with RecordStore.read(folder) as store:
        settings = store.settings
    if settings.get("verb") == "predict":
        raise BadInput(
            f"run {folder}",
            "is a prediction, made of runs",
            "see it again with the command that made it, or draw it with advpure plot",
        )
    if settings.get("verb") != "sweep":
        return [folder]
    points = sorted(settings["points"], key=lambda point: point["place"])
    folders = [folder.parent / point["run"] for point in points]
    return [run for run in folders if (run / FILE_NAME).is_file()]


def _kind(settings: Mapping[str, Any]) -> str | None:
    verb = settings.get("verb")
    if verb == "survival":
        if settings["at"] == "anchor":
            return "anchor"
        return "clean" if settings["defense"]["purifier"] == "none" else None
    fixed = verb == "attack" and settings["decisions"]["randomness"] == "fixed"
    if fixed and settings["source_seed"] is None:
        return "attack"
    return "cr" if verb == "cr" else None


def _clean(sources: Iterable[_Source]) -> _Source:
    known = [each for each in sources if each.kind == "clean"]
    if not known:
        raise BadInput(
            "these runs",
            "hold no survival of the classifier at clean images",
            "add a run of advpure survival on the same images",
        )
    if len(known) > 1:
        raise BadInput(
            str(known[1].folder),
            f"is a second survival run of a classifier, beside {known[0].folder}",
            "give one of them",
        )
    return known[0]


def _radius(attacks: Iterable[_Source], eps: float | None) -> float:
    if eps is not None:
        return eps
    known = sorted({_eps(each) for each in attacks})
    if len(known) == 1:
        return known[0]
    listed = ", ".join(f"{each:g}" for each in known)
    raise BadInput(
        f"attacks of radius {listed}" if known else "runs without an attack",
        "do not say which radius to predict",
        "give it, --eps",
    )


def _eps(attack: _Source) -> float:
    return float(attack.settings["threat_model"]["eps"])


def _is(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=_SAME)


def _groups(evaluated: Iterable[_Source]) -> list[_Group]:
    """Group attack and anchor runs by purifier and seed; what is not random fits any seed."""
    groups: list[_Group] = []
    for source in evaluated:
        for group in groups:
            seeds = {group.seed, source.seed} - {None}
            if group.purifier == source.purifier and len(seeds) < 2:
                group.seed = next(iter(seeds), None)
                break
        else:
            group = _Group(source.purifier, source.seed)
            groups.append(group)
        group.add(source)
    return groups


def _join_rates(groups: list[_Group], rates: list[_Source], eps: float) -> list[str]:
    """Put compression runs into the groups of the same purifier and seed, or groups of their own.

    Of several runs about one purifier those at strength `eps` count, if there are any.

    Returns:
        What to say of strengths that are not the attack's.
    """
    notes = []
    exact = {id(each) for each in rates if any(_is(eps, k) for k in each.settings["eps"])}
    for source in sorted(rates, key=lambda each: id(each) not in exact):
        s = source.settings
        own = [
            group
            for group in groups
            if all(s.get(key) == value for key, value in group.purifier.items())
            and (group.seed is None or group.seed in s["seeds"])
        ]
        if not own:
            names = ("purifier", "t", "sigma", "dataset")
            own = [_Group({name: s.get(name) for name in names}, s["seeds"][0])]
            groups.extend(own)
        for group in own:
            if id(source) not in exact and id(group.runs.get("cr")) in exact:
                continue
            group.add(source)
            strength = _strength(source, eps)
            seed = s["seeds"][0] if group.seed is None else group.seed
            with RecordStore.read(source.folder) as store:
                group.rates = read_rates(store, strength, seed)
            if not _is(strength, eps):
                notes.append(
                    f"compression of {group.label} was measured at {strength:.4g}, not {eps:.4g}"
                )
    return notes


def _strength(source: _Source, eps: float) -> float:
    strengths = source.settings["eps"]
    for each in strengths:
        if _is(each, eps):
            return float(each)
    if len(strengths) > 1:
        listed = ", ".join(f"{each:g}" for each in strengths)
        raise BadInput(
            f"{source.folder}", f"has rates at {listed}, none of them {eps:g}", "measure that one"
        )
    return float(strengths[0])


def _order(groups: Sequence[_Group]) -> Any:
    """Return a key that sorts by purifier as they came, then by strength."""
    names = list(dict.fromkeys(group.purifier["purifier"] for group in groups))

    def key(group: _Group) -> tuple[int, float, float]:
        own = group.purifier
        return names.index(own["purifier"]), own.get("t") or 0, own.get("sigma") or 0.0

    return key


def _setting(group: _Group, clean: _Source) -> PredictionInput:
    rates = group.rates
    at_clean: dict[int, Radius] = _read(clean, read_radii)
    # A run that has only begun says nothing yet, and does not take the others' images away.
    at_anchor: dict[int, Radius] | None = _read(group.runs.get("anchor"), read_radii) or None
    verdicts = _read(group.runs.get("attack"), read_verdicts) or None
    known = [each for each in (rates, at_clean, at_anchor, verdicts) if each is not None]
    ids = sorted(set.intersection(*(set(each) for each in known)))
    if not ids:
        raise BadInput(f"runs of {group.label}", "share no image", "measure the same images")
    t, sigma = group.purifier.get("t"), group.purifier.get("sigma")
    return PredictionInput(
        purifier=group.purifier["purifier"],
        t=t,
        sigma=sigma if t is None else None,
        ids=np.array(ids),
        cr=np.array([rates[i] for i in ids]),
        clean=_ends(at_clean, ids),
        anchor=None if at_anchor is None else _ends(at_anchor, ids),
        robust=None if verdicts is None else np.array([verdicts[i].robust for i in ids]),
        accurate=None if verdicts is None else np.array([verdicts[i].accurate for i in ids]),
        top=(_top(clean), _top(group.runs.get("anchor"))),
    )


def _read(source: _Source | None, read: Any) -> Any:
    if source is None:
        return None
    with RecordStore.read(source.folder) as store:
        return read(store)


def _ends(radii: Mapping[int, Radius], ids: Sequence[int]) -> Any:
    ends = [radii[i].upper for i in ids]
    return np.array([math.inf if end is None else end for end in ends])


def _top(source: _Source | None) -> float:
    return math.inf if source is None else float(source.settings["threat_model"]["top"])
