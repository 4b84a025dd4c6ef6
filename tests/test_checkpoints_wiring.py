"""Every official checkpoint: parameters, every key and shape, and the official code's outputs."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput, MissingExtra
from advpure.checkpoints.adapters import AsClassifier, AsDenoiser, ContinuousDenoiser
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.layout import Layout, assemble, compare, part
from advpure.checkpoints.proof import deviation, load_proofs, recipe_weights
from advpure.checkpoints.song import SongConfig
from advpure.checkpoints.unet2d import UNet2D, UNet2DConfig
from advpure.checkpoints.verify import TOLERANCE
from advpure.core.denoisers import Denoiser
from advpure.core.schedules import cosine_schedule, vp_abar

KEYS = Path(__file__).parent / "fixtures" / "checkpoints"
NAMES = CHECKPOINTS.names()
UNSTATED = {"madry-resnet50-l2-3", "golan-joint-resnet50", "golan-joint-wide-resnet50-2"}
"""Classifiers whose accuracy no source states."""
# Entries that share a network share its proof; one of each is enough.
PROOFS = {CHECKPOINTS.get(name).proof: name for name in reversed(NAMES)}


BUILT: dict[str, tuple[nn.Module, Layout]] = {}


def skeleton(entry: Checkpoint) -> tuple[nn.Module, Layout]:
    try:
        if entry.proof not in BUILT:
            BUILT[entry.proof] = entry.skeleton()
    except MissingExtra as missing:
        pytest.skip(str(missing))
    return BUILT[entry.proof]


def listed(proof: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official code's own state dictionary."""
    shapes = {}
    for line in (KEYS / f"{proof}.keys").read_text().splitlines():
        name, _, sizes = line.partition(" ")
        shapes[name] = tuple(int(size) for size in sizes.split(",") if size)
    return shapes


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_keys_are_the_official_ones(name: str) -> None:
    entry = CHECKPOINTS.get(name)
    network, layout = skeleton(entry)
    official = listed(entry.proof)
    counters = {key for key in official if key.endswith("num_batches_tracked")}
    if entry.name == "resnet56-cifar10":  # the published file is older than batch counters
        assert len(counters) == 55
        official = {key: shape for key, shape in official.items() if key not in counters}
    assert layout.official() == official
    assert layout.parameters() == entry.parameters
    assert len(official) == entry.tensors
    assert set(layout.sources) == set(network.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_official_tensors_load_key_by_key(name: str) -> None:
    entry = CHECKPOINTS.get(name)
    network, layout = skeleton(entry)
    state = {key: torch.empty(shape, device="meta") for key, shape in layout.official().items()}
    assert not compare(layout, state)
    made = assemble(layout, state, name)
    expected = network.state_dict()
    assert {key: value.shape for key, value in made.items()} == {
        key: value.shape for key, value in expected.items()
    }
    first = next(key for key in state if key not in layout.unused)
    wrong = {key: value for key, value in state.items() if key != first}
    with pytest.raises(BadInput, match="is missing from the file; ") as error:
        assemble(layout, wrong, name)
    assert first in str(error.value)
    with pytest.raises(BadInput, match=f"'surplus' is unknown to {name};"):
        assemble(layout, {**state, "surplus": torch.zeros(1)}, name)
    with pytest.raises(BadInput, match=r"has shape \(1, 1, 1, 1, 1\), not \("):
        assemble(layout, {**state, first: torch.zeros(1, 1, 1, 1, 1)}, name)


SLOW = {"beit-imagenet", "scoresde"}  # seconds each, and the others cover their code


@pytest.mark.parametrize(
    "proof",
    [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p in sorted(PROOFS)],
)
def test_a_narrow_network_answers_as_the_official_code_does(proof: str) -> None:
    entry = CHECKPOINTS.get(PROOFS[proof])
    skeleton(entry)
    case = load_proofs(proof).get("small")
    if case is None:
        pytest.skip("the published network is small: the full proof is it")
    assert deviation(entry, case) < TOLERANCE


def test_resnet56_answers_as_the_official_code_does() -> None:
    entry = CHECKPOINTS.get("resnet56-cifar10")
    assert deviation(entry, load_proofs("resnet56")["full"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("proof", sorted(PROOFS))
def test_the_published_network_answers_as_the_official_code_does(proof: str) -> None:
    entry = CHECKPOINTS.get(PROOFS[proof])
    skeleton(entry)
    if entry.parameters > 130e6:
        pytest.skip("up to 10 GB and minutes; `advpure models verify NAME --full` runs it")
    assert deviation(entry, load_proofs(proof)["full"]) < TOLERANCE


def test_every_entry_has_a_full_proof() -> None:
    for proof in PROOFS:
        assert "full" in load_proofs(proof), proof
        assert len(load_proofs(proof)["full"].output) >= 10


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adm-imagenet256", {"order": "parts"}),
        ("adm-imagenet64-cond", {"order": "heads"}),
        ("edm-imagenet64-cond", {"order": "parts"}),
        ("iddpm-imagenet64", {"heads": 2}),
        ("cm-imagenet64-cd-lpips", {"time_scale": 1.0}),
        ("pesser-ddpm-cifar10", {"attention": (2,), "names": "ddpm"}),
    ],
)
def test_a_proof_notices_a_wrong_order_head_count_or_time(
    name: str, change: dict[str, object]
) -> None:
    entry = CHECKPOINTS.get(name)
    skeleton(entry)
    case = load_proofs(entry.proof)["small"]
    changed = replace(case, config={**case.config, **change})
    assert deviation(entry, changed) > 1e-3


@pytest.mark.parametrize(("fir", "residual_input"), [(False, True), (True, False)])
def test_a_proof_notices_a_wrong_filter(fir: bool, residual_input: bool) -> None:
    entry = CHECKPOINTS.get("jcm-cifar10-cd-lpips")
    case = load_proofs(entry.proof)["small"]
    change = {"fir": fir, "residual_input": residual_input}
    assert deviation(entry, replace(case, config={**case.config, **change})) > 1e-3


def test_the_three_attention_orders_are_permutations_of_one_another() -> None:
    heads, each = 2, 3
    width = heads * each
    # Channel number as (which of q, k, v; head; channel within the head).
    number = torch.arange(3 * width).reshape(3, heads, each)
    joint = {
        "parts": number.flatten(),
        "heads": number.permute(1, 0, 2).flatten(),
        "interleaved": number.permute(1, 2, 0).flatten(),
    }
    for order, channels in joint.items():
        for k in range(3):
            source = part("qkv.weight", torch.zeros(width, 4), k, order, heads, 1)  # type: ignore[arg-type]
            weight = channels.float()[:, None, None].expand(-1, 4, 1)
            assert source.shapes == ((3 * width, 4, 1),)
            assert source.make(weight)[:, 0].long().tolist() == number[k].flatten().tolist()


def test_the_mean_class_is_the_mean_of_the_embeddings() -> None:
    pytest.importorskip("diffusers")
    shape = UNet2DConfig(
        image_size=8, channels=(32, 32), layers=1, attention=(1,), head_channels=32, classes=5
    )
    with torch.random.fork_rng(devices=[]):
        network = UNet2D(shape).eval()
    table = network.unet.class_embedding
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(table.weight.shape, generator=generator)
    with torch.no_grad():
        table.weight.copy_(rows)
        assert torch.allclose(table(torch.tensor([-1, 3])), torch.stack([rows.mean(0), rows[3]]))
        x, time = torch.randn(2, 3, 8, 8, generator=generator), torch.ones(2)
        network.label = 3
        assert torch.equal(network(x, time), network(x, time, torch.tensor([3, 3])))


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_wrapped_for_its_use(name: str) -> None:
    entry = CHECKPOINTS.get(name)
    wrapped = entry.adapt(nn.Identity())
    assert isinstance(wrapped, Denoiser) == (entry.kind == "denoiser")
    assert entry.licence
    assert entry.quality
    assert entry.source.startswith(("https://", "hf:"))
    is_stated = entry.kind == "classifier" and name not in UNSTATED
    assert (entry.accuracy is not None) == is_stated


class _Recorder(nn.Module):
    """A network that remembers what it was asked."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.x, self.time = x, time
        return torch.zeros(x.shape[0], self.channels, *x.shape[2:])


def test_network_times() -> None:
    x = torch.ones(2, 3, 4, 4)
    network = _Recorder(6)
    denoiser = CHECKPOINTS.get("iddpm-cifar10").adapt(network)
    denoiser(x, float(cosine_schedule(4000).sigmas[1984]))
    assert network.time.tolist() == [496.0, 496.0]  # index 1984 of 4000
    network = _Recorder()
    CHECKPOINTS.get("jcm-cifar10-edm").adapt(network)(x, 0.5)
    assert network.time.tolist() == pytest.approx([0.25 * torch.tensor(0.5).log().item()] * 2)
    network = _Recorder()
    denoiser = AsDenoiser(kind="vp")(network)
    assert isinstance(denoiser, ContinuousDenoiser)
    sigma = ((1 - vp_abar(0.1)) / vp_abar(0.1)) ** 0.5
    denoiser(x, torch.tensor([sigma, sigma]))
    assert network.time.tolist() == pytest.approx([99.9, 99.9], rel=1e-6)
    assert torch.allclose(network.x, x * vp_abar(0.1) ** 0.5)
    assert denoiser.sigma_max == pytest.approx((1 / vp_abar(1.0) - 1) ** 0.5, rel=1e-3)


def test_a_classifier_normalises_and_resizes() -> None:
    settings = AsClassifier(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), size=8)
    out = settings(nn.Identity())(torch.full((1, 3, 4, 4), 0.75))
    assert out.shape == (1, 3, 8, 8)
    expected = torch.tensor([0.5, 2.0, 0.75])[None, :, None, None].expand(1, 3, 8, 8)
    assert torch.allclose(out, expected, atol=1e-6)


def test_a_network_without_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("diffusers", "timm", "torchvision"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    for name, extra in (
        ("iddpm-cifar10", "hub"), ("vit-b16-imagenet", "hub"),
        ("robustbench-standard-r50", "metrics"),
    ):  # fmt: skip
        with pytest.raises(MissingExtra, match=rf"advpure\[{extra}\]"):
            CHECKPOINTS.get(name).skeleton()


@pytest.mark.parametrize(
    ("name", "change", "rounding"),
    [
        # Its attention takes the softmax in float32, as published, whatever the dtype around it.
        ("iddpm-cifar10", {"channels": (32, 64, 64, 64), "layers": 1}, 2.0**-24),
        ("edm-cifar10-uncond-ve", {"width": 16, "blocks": 1}, 2.0**-44),
    ],
)
def test_networks_have_both_derivatives_and_ignore_their_neighbours(
    name: str, change: dict[str, object], rounding: float
) -> None:
    entry = CHECKPOINTS.get(name)
    entry = replace(entry, config=replace(entry.config, **change))
    try:
        _, layout = entry.skeleton()
    except MissingExtra as missing:
        pytest.skip(str(missing))
    state = recipe_weights(layout.official(), 0)
    denoiser = entry.adapt(entry.network(assemble(layout, state, name))).double()
    generator = torch.Generator().manual_seed(0)
    x, v, u = torch.randn(3, 2, 3, 16, 16, generator=generator, dtype=torch.float64)
    _, forward = torch.func.jvp(lambda x: denoiser(x, 0.5), (x,), (v,))
    leaf = x.clone().requires_grad_()
    (backward,) = torch.autograd.grad(denoiser(leaf, 0.5), leaf, u)
    # The same derivative twice, rounded differently: off by its rounding, relative to its size.
    allowed = rounding * float(u.norm() * forward.norm())
    assert float((u * forward).sum()) == pytest.approx(float((backward * v).sum()), abs=allowed)
    beside = torch.stack([x[0], u[0]])
    assert torch.equal(denoiser(x, 0.5)[0], denoiser(beside, 0.5)[0])


def test_song_networks_agree_on_their_parameters_under_every_name() -> None:
    entry = CHECKPOINTS.get("jcm-cifar10-cd-lpips")
    shape = replace(entry.config, width=32)
    counts = {}
    for names in ("edm", "flax", "score-sde"):
        config: SongConfig = replace(shape, names=names)
        _, layout = replace(entry, config=config).skeleton()
        counts[names] = layout.parameters()
    augmentation, frequencies = 9 * 2 * 32, 32
    assert counts["flax"] == counts["score-sde"]
    assert counts["edm"] == counts["flax"] + augmentation - frequencies
