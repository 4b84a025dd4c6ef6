"""What a run will cost is counted before it starts, and never less than what it then costs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.protocol import ATTACKS, DECISIONS
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.study import cost_of
from advpure.core.randomness import RandomnessConfig
from advpure.data import dataset_info
from advpure.loading import load_defense, load_purifier
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore

CASES: list[dict[str, Any]] = [
    {"attack_options": {"steps": 4}},
    {"attack_options": {"steps": 4, "stop": "never"}},
    {"attack_options": {"steps": 4, "iterate": "best"}},
    {"attack_options": {"steps": 3, "eot": 3}},
    {"attack_options": {"steps": 4}, "randomness": "fresh", "draws": 3},
    {"attack_options": {"steps": 4}, "source_seed": 1},
    {"attack": "apgd", "attack_options": {"steps": 5, "stop": "never"}},
    {"attack": "apgd", "attack_options": {"steps": 3}, "randomness": "fresh"},
    {"attack": "pgd-eot", "attack_options": {"steps": 3, "eot": 3}},
    {"attack": "bpda", "attack_options": {"steps": 3}},
    {"attack": "bpda-eot", "attack_options": {"steps": 2, "eot": 2}, "randomness": "fresh"},
    {"attack_options": {"budget": 100}},
    {"attack_options": {"budget": 120, "eot": 2}, "randomness": "fresh", "draws": 2},
    {"attack": "square", "attack_options": {"queries": 20, "proposals": 3}},
    {"attack": "apgd-targeted", "attack_options": {"steps": 3, "targets": 2}},
    {"attack": "rays", "attack_options": {"queries": 15}},
    {"attack_options": {"steps": 3, "restarts": 3}},
    {"attack": "uniform-noise", "attack_options": {"draws": 5}},
    {"attack_options": {"steps": 2}, "policy": "majority:3"},
    {"attack_options": {"steps": 2}, "defense": "ddpm", "t": 4},
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_counted_passes_bound_those_that_happen(tmp_path: Path, case: dict[str, Any]) -> None:
    settings = Robustness(**{"randomness": "fixed", "n": 5, **case})
    prepared = Robustness.load(settings)
    most = settings.cost(prepared)
    Robustness.run(settings, out=tmp_path)
    with RecordStore.read(tmp_path) as store:
        attacks = store.rows(ATTACKS.table)
        passes = sum(row["forwards"] for row in attacks) + store.count(DECISIONS.table)
    backwards = sum(row["backwards"] for row in attacks)
    assert 0 < passes * prepared.defense.evaluations <= most.evaluations
    assert 0 <= backwards <= most.backwards
    assert most.images == 5
    if case["attack_options"].get("stop") == "never":
        # The bound is no wild guess: what may be saved is a few tests an image.
        assert most.evaluations <= passes * prepared.defense.evaluations + 5 * 4 * 2
        assert most.backwards <= backwards + 5


class Counter(nn.Module):
    """Count the rows that a network sees."""

    def __init__(self, inner: nn.Module) -> None:
        """Wrap a network."""
        super().__init__()
        self.inner, self.rows = inner, 0

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Return what the network returns."""
        self.rows += len(x)
        answer: Tensor = self.inner(x, *rest)
        return answer


@pytest.mark.parametrize(("name", "evaluations"), [("cm", 1), ("ddpm", 4), ("none", 0)])
def test_evaluations_are_what_the_network_sees(name: str, evaluations: int) -> None:
    t = 4 if name == "ddpm" else None
    purifier = load_purifier(name, xi=RandomnessConfig(0), t=t)
    assert purifier.chain.evaluations == evaluations
    if purifier.denoiser is None:
        return
    denoiser: Any = purifier.denoiser
    network = denoiser.network = Counter(denoiser.network)
    rows = dataset_info("digits").tile
    purifier.at(ids=range(rows))(torch.full((rows, 1, 8, 8), 0.5))
    assert network.rows == rows * evaluations


def test_a_compression_run_costs_what_was_counted(tmp_path: Path) -> None:
    run = Compression(n=5, eps=["2/255", "8/255"], perturbations=3, seeds=[0, 1])
    most = cost_of(run)
    report = Compression.run(run, out=tmp_path)
    rates = len(report.result.rows)
    assert rates == 5 * 2 * 3 * 2
    assert rates + 5 * 2 <= most.evaluations
    assert most.backwards == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that estimates see: it stands still but for what a test adds."""
    now = [0.0]
    monkeypatch.setattr("advpure.runs.cost.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


class Slow(Counter):
    """Take two seconds an evaluation and three a backward pass, by the clock of the test."""

    def __init__(self, inner: nn.Module, clock: list[float]) -> None:
        """Wrap a network."""
        super().__init__(inner)
        self.clock = clock

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Return what the network returns."""
        self.clock[0] += 2.0
        answer = super().forward(x, *rest)
        if answer.requires_grad:
            answer.register_hook(self._backward)
        return answer

    def _backward(self, gradient: Tensor) -> None:
        self.clock[0] += 3.0


def test_seconds_grow_with_images_and_memory_is_that_of_the_process(clock: list[float]) -> None:
    defense = load_defense("cm", xi=RandomnessConfig(0), gradient="full")
    denoiser: Any = defense.purifier.denoiser
    denoiser.network = Slow(denoiser.network, clock)
    images = torch.full((3, 1, 8, 8), 0.5)
    tile = defense.tile or 3
    small = estimate(defense, images, tile, 10, 5)
    large = estimate(defense, images, 100 * tile, 10, 5)
    assert (large.evaluations, large.backwards) == (100 * tile * 10 * 2, 100 * tile * 5)
    # Of ten passes of a tile five go back: 5 * 2 + 5 * (2 + 3) seconds.
    assert small.seconds == pytest.approx(35.0)
    assert large.seconds == pytest.approx(100 * small.seconds)
    assert small.peak_memory > 50 * 2**20
    assert Cost(**small.to_json()) == small


def test_random_defenses_can_be_calibrated_without_a_configuration_of_their_own() -> None:
    fresh = RandomnessConfig(0, scope="fresh")
    found = estimate(load_defense("cm", xi=fresh), torch.full((1, 1, 8, 8), 0.5), 1, 1, 0)
    assert found.evaluations == 2


@pytest.mark.parametrize(
    ("gradient", "backwards"),
    [
        (None, 0),
        pytest.param(None, 1, marks=pytest.mark.slow),
        pytest.param("surrogate", 1, marks=pytest.mark.slow),
    ],
)
def test_a_long_chain_is_timed_by_its_beginning(
    gradient: Any, backwards: int, clock: list[float]
) -> None:
    """The seconds are those of the whole chain, and few of its evaluations are made."""
    purifier = load_purifier("ddpm", xi=RandomnessConfig(0), t=60, gradient=gradient)
    images = torch.full((4, 1, 8, 8), 0.5)
    rows = purifier.tile or 4
    denoiser: Any = purifier.denoiser
    slow = denoiser.network = Slow(denoiser.network, clock)
    found = estimate(purifier, images, rows, 1, backwards)
    spent = slow.rows / rows
    assert found.evaluations == rows * 60
    if gradient is None:
        assert spent < (1 + 3 * backwards) * 60
    x = images[torch.arange(rows) % 4].requires_grad_(bool(backwards))
    clock[0] = 0.0
    y = purifier.at(ids=range(rows))(x)
    if backwards:
        torch.autograd.grad(y.sum(), x)
    assert clock[0] >= 60 * 2.0
    assert found.seconds == pytest.approx(clock[0])
