"""Results do not depend on the modes and defaults of the process that asks."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.analysis import (
    estimate_divergence,
    gradient_noise,
    infinitesimal_compression_rate,
    leading_singular_values,
    signal_to_noise,
    step_compression,
)
from advpure.analysis.check_grad.gradients import check_gradients
from advpure.analysis.survival.minimum_radius import RadiusSettings, minimum_radii
from advpure.attacks import PGDSettings, apgd, bpda, pgd, pgd_eot
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.core.randomness import RandomnessConfig, set_noise_cache
from advpure.data import load_images
from advpure.loading import load_classifier, load_defense, load_purifier

IMAGES, LABELS, IDS = load_images("digits", n=8)
XI = RandomnessConfig(0)


def _values(result: Any) -> list[float]:
    """Return the numbers of a result."""
    return [float(each) for each in result]


GRADIENTS: dict[str, Callable[[Tensor, Tensor], list[float]]] = {
    "pgd": lambda x, y: _values(
        pgd(load_defense("cm", "digits", xi=XI), x, y, eps=0.15, steps=5).loss
    ),
    "apgd": lambda x, y: _values(
        apgd(load_defense("cm", "digits", xi=XI), x, y, eps=0.15, steps=5).loss
    ),
    "bpda": lambda x, y: _values(
        bpda(load_defense("cm", "digits", xi=XI), x, y, eps=0.15, steps=5).loss
    ),
    "pgd-eot": lambda x, y: _values(
        pgd_eot(load_defense("cm", "digits", xi=XI), x, y, eps=0.15, steps=2, eot=2).loss
    ),
    "checkpoint": lambda x, y: _values(
        pgd(load_defense("ddpm", "digits", t=4, xi=XI, gradient="checkpoint"), x, y,
            eps=0.15, steps=2).loss
    ),
    "plain": lambda x, y: _values(pgd(load_classifier("digits"), x, y, eps=0.15, steps=5).loss),
    "radii": lambda x, y: [
        row.lower for row in minimum_radii(
            load_classifier("digits"), x, y,
            RadiusSettings(attack="pgd", settings=PGDSettings(eps=0.3, steps=5), bisections=2),
        )
    ],
    "infinitesimal": lambda x, _: [
        row.rate for row in infinitesimal_compression_rate(
            load_purifier("cm", "digits"), x, probes=1
        ).rows
    ],
    "divergence": lambda x, _: [
        each.trace.value for each in estimate_divergence(
            load_purifier("cm", "digits", xi=XI), x, probes=1, method="vjp"
        ).values()
    ],
    "singular": lambda x, _: [
        value for each in leading_singular_values(
            load_purifier("cm", "digits"), x[:1], count=1, basis=8
        ).values() for value in each.values
    ],
    "noise": lambda x, y: _values(gradient_noise(
        load_defense("cm", "digits"), x, y, draws=2, reference=2
    ).snrs.values()),
    "steps": lambda x, _: [
        step.exact.value for step in step_compression(
            load_purifier("reverse", "digits", t=2), x[:2]
        ).steps() if step.exact is not None
    ],
    "check-grad": lambda *_: [
        check_gradients("onestep-edm", "digits", n=1, directions=1)[0].full_difference.error
    ],
}  # fmt: skip


QUICK = ("plain", "pgd", "divergence")


@pytest.mark.parametrize(
    "name",
    [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in GRADIENTS],
)
def test_gradients_are_recorded_whatever_surrounds_the_call(name: str) -> None:
    wanted = GRADIENTS[name](IMAGES, LABELS)
    with torch.no_grad():
        assert GRADIENTS[name](IMAGES, LABELS) == wanted
    with torch.inference_mode():
        images, labels = IMAGES * 1.0, LABELS * 1
        assert GRADIENTS[name](images, labels) == wanted
    assert GRADIENTS[name](images, labels) == wanted  # inference tensors, outside


def test_an_attack_finds_the_same_under_inference_mode() -> None:
    def robust() -> float:
        defense = load_defense("cm", "digits", xi=XI)
        found = pgd(defense, IMAGES * 1.0, LABELS * 1, eps=0.15, steps=5)
        return 1.0 - float(found.success.float().mean())

    with torch.inference_mode():
        assert robust() == 0.875  # and not 1.0, with a hint at another loss
    assert robust() == 0.875


def test_snr_draws_the_same_noise_under_another_default_dtype() -> None:
    def squares() -> float:
        purifier = load_purifier("cm", "digits", xi=XI)
        set_noise_cache(8)  # draw anew
        found = signal_to_noise(purifier, IMAGES[:1], perturbations=3, configurations=3)
        return found.rows[0].squares_columns

    assert squares() == pytest.approx(3.655, abs=5e-4)  # and not 4.094
    with _double():
        assert squares() == pytest.approx(3.655, abs=5e-4)


def test_weights_made_under_inference_mode_are_named() -> None:
    with torch.inference_mode():
        weights = torch.ones(64, 10)
    with pytest.raises(BadInput, match=r"weights made under torch\.inference_mode\(\) lets no"):
        pgd(lambda x: x.flatten(1) @ weights, IMAGES, LABELS, eps=0.1)


DIGITS = "--dataset digits"
VERBS: dict[str, str] = {
    "attack": f"attack -n 3 --steps 2 {DIGITS}",
    "attack-eot": f"attack -n 2 --steps 1 --attack bpda-eot --eot 2 --draws 2 {DIGITS}",
    "cr": f"cr -n 3 {DIGITS}",
    "measure": f"measure distance -n 2 {DIGITS}",
    "snr": f"snr -n 2 --perturbations 3 --configurations 3 {DIGITS}",
    "gradients": f"gradients -n 2 --draws 4 --reference 4 {DIGITS}",
    "survival": f"survival -n 3 --bisections 2 --steps 2 {DIGITS}",
    "steps": f"steps -n 1 -d ddpm --t 3 {DIGITS}",
    "representation": f"representation -n 2 --levels 2 {DIGITS}",
    "distances": f"distances -n 3 --metrics ssim,frechet-classifier,classifier-score {DIGITS}",
    "transport": f"transport -n 2 --sigma 0.25 {DIGITS}",
    "certify": f"certify -n 2 -N 64 --selection 16 --sigma 0.25 {DIGITS}",
    "randomness": f"randomness -n 2 --seeds 0,1 --steps 1 --eot 2 --draws 2 {DIGITS}",
    "timesteps": f"timesteps -n 2 --times 2,4 --attack-times 4 --steps 1 {DIGITS}",
    "predict": f"predict -d cm,none -n 6 --bisections 2 --steps 1 --perturbations 2 {DIGITS}",
    "check-grad": f"check-grad -d onestep-edm -n 1 --directions 1 {DIGITS}",
    "models": "models verify resnet56-cifar10",
    "field": "field --dimension 60 --std-off 0.01 --draws 2",
    "two-point": "two-point --draws 20",
}


@contextlib.contextmanager
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def _meta() -> Iterator[None]:
    with torch.device("meta"):
        yield


@contextlib.contextmanager
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


AROUND = {"double": _double, "meta": _meta, "threads": _two_threads}


def _numbers(value: Any, place: str = "") -> dict[str, Any]:
    """Return what a verb says, without where and when, by place."""
    if isinstance(value, dict):
        parts = [(str(key), each) for key, each in value.items() if key not in ("run", "seconds")]
    elif isinstance(value, list):
        parts = [(str(k), each) for k, each in enumerate(value)]
    else:
        return {place: value}
    return {k: v for key, each in parts for k, v in _numbers(each, f"{place}/{key}").items()}


def _say(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    folder.mkdir()
    set_noise_cache(8)  # draw anew
    monkeypatch.chdir(folder)
    code = run([*words.split(), "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return _numbers(json.loads(told.out))


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_the_same_under_other_defaults(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _say(VERBS[verb], tmp_path / "plain", capsys, monkeypatch)
    for name, around in AROUND.items():
        with around():
            found = _say(VERBS[verb], tmp_path / name, capsys, monkeypatch)
        if name == "threads":  # sums of other parts: equal to rounding only
            assert found.keys() == wanted.keys()
            kinds = {k: v for k, v in wanted.items() if isinstance(v, float)}
            assert {k: found[k] for k in kinds} == pytest.approx(kinds, rel=1e-2, abs=1e-4)
        else:
            assert found == wanted, name
