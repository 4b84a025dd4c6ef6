"""A sample's result depends on neither batch size, order, company nor shard: bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.protocol import ATTACKS, DECISIONS
from advpure.analysis.robustness.study import Robustness
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row

STRENGTHS: dict[str, dict[str, Any]] = {"cm": {}, "ddpm": {"t": 3}}
Tables = tuple[list[Row], list[Row]]


def attacked(folder: Path, batch_size: int, **settings: Any) -> Tables:
    """Run an attack and return all rows of both tables."""
    Robustness.run(
        Robustness(**{"randomness": "fixed", **settings}), out=folder, batch_size=batch_size
    )
    with RecordStore.read(folder) as store:
        return store.rows(DECISIONS.table), store.rows(ATTACKS.table)


def compressed(folder: Path, batch_size: int, **settings: Any) -> list[Row]:
    Compression.run(Compression(**settings), out=folder, batch_size=batch_size)
    with RecordStore.read(folder) as store:
        return store.rows(store.schemas[0].table)


def index_file(folder: Path, count: int) -> str:
    """Write the first indices in a shuffled order, and return the file's name."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5)).tolist()
    assert order != sorted(order)
    path = folder / "order.txt"
    path.write_text("\n".join(map(str, order)))
    return str(path)


def joined(*parts: list[Row]) -> list[Row]:
    """Put the rows of shards in the order of a whole run."""
    keys = ("sample", "stage", "draw")
    rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys if key in row))


def check_attack(folder: Path, count: int, split: int, **settings: Any) -> None:
    """Compare batch sizes 1, 7 and 64, a shuffled order and two shards."""
    whole = f"0:{count}"
    first = attacked(folder / "64", 64, subset=whole, **settings)
    assert len(first[0]) == 3 * count * (settings.get("draws") or 1)
    assert len(first[1]) == 2 * count
    assert len({row["margin"] for row in first[0]}) > len(first[0]) / 2
    assert any(row["iterations"] for row in first[1])
    for size in (7, 1):
        assert attacked(folder / str(size), size, subset=whole, **settings) == first
    shuffled = index_file(folder, count)
    assert attacked(folder / "order", 7, subset=shuffled, **settings) == first
    shards = [
        attacked(folder / part, 64, subset=part, **settings)
        for part in (f"0:{split}", f"{split}:{count}")
    ]
    assert tuple(joined(*tables) for tables in zip(*shards, strict=True)) == first


@pytest.mark.parametrize("name", ["cm", pytest.param("ddpm", marks=pytest.mark.slow)])
@pytest.mark.parametrize("protocol", [{}, {"randomness": "fresh", "draws": 2}])
def test_attack_records(tmp_path: Path, name: str, protocol: dict[str, Any]) -> None:
    options = {"steps": 2, "loss": "margin"}
    check_attack(
        tmp_path, 9, 4, defense=name, **STRENGTHS[name], **protocol, attack_options=options
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"attack": "apgd", "attack_options": {"steps": 4}}, id="apgd"),
        pytest.param(
            {"attack": "pgd-eot", "attack_options": {"steps": 2, "eot": 2}, "scheme": "counter"},
            id="eot",
        ),
        pytest.param(
            {"attack_options": {"steps": 2}, "norm": "l2", "eps": 1.0, "policy": "eot:2"},
            id="l2-policy",
        ),
        pytest.param(
            {"attack_options": {"steps": 2}, "source_seed": 3},
            id="transfer",
        ),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_attack_records_of_other_settings(tmp_path: Path, settings: dict[str, Any]) -> None:
    check_attack(tmp_path, 6, 1, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cm", "ddpm"])
@pytest.mark.parametrize("protocol", [{}, {"randomness": "fresh", "draws": 3}])
def test_attack_records_over_several_tiles(
    tmp_path: Path, name: str, protocol: dict[str, Any]
) -> None:
    options = {"steps": 10 if name == "cm" else 4}
    strength = {"t": 4, "tile": 16} if name == "ddpm" else {}
    check_attack(tmp_path, 70, 33, defense=name, **strength, **protocol, attack_options=options)


@pytest.mark.parametrize("name", ["cm", "ddpm"])
@pytest.mark.parametrize("scheme", ["hash", "counter"])
def test_noise_and_purified_images(name: str, scheme: Scheme) -> None:
    images, _, ids = load_images(n=70)
    xi = RandomnessConfig(9, scheme)
    purifier = load_purifier(name, xi=xi, **STRENGTHS[name])

    def noise(rows: Tensor) -> Tensor:
        return xi.normal(ids[rows], "reverse", 2, (1, 8, 8))

    def purify(rows: Tensor) -> Tensor:
        with torch.no_grad():
            purified: Tensor = purifier.at(ids=ids[rows])(images[rows])
        return purified

    everything = torch.arange(70)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    for function in (noise, purify):
        whole = function(everything)
        for size in (1, 7, 64):
            parts = torch.split(everything[: 2 * size + 1], size)
            assert torch.cat([function(part) for part in parts]).equal(whole[: 2 * size + 1])
        assert function(order).equal(whole[order])
        assert len({row.sum().item() for row in whole}) == 70


@pytest.mark.parametrize("name", ["cm", "ddpm"])
def test_compression_records(tmp_path: Path, name: str) -> None:
    settings: dict[str, Any] = {
        "defense": name, **STRENGTHS[name], "eps": ["2/255", "8/255"], "perturbations": 2,
        "seeds": [0, 5],
    }  # fmt: skip
    first = compressed(tmp_path / "64", 64, subset="0:9", **settings)
    assert len(first) == 2 * 2 * 2 * 9
    assert len({row["rate"] for row in first}) == len(first)
    for size in (7, 1):
        assert compressed(tmp_path / str(size), size, subset="0:9", **settings) == first
    shuffled = compressed(tmp_path / "order", 7, subset=index_file(tmp_path, 9), **settings)
    assert shuffled == first
    shards = [compressed(tmp_path / part, 64, subset=part, **settings) for part in ("0:4", "4:9")]
    keys = ("eps", "seed", "id", "draw")
    union = sorted(shards[0] + shards[1], key=lambda row: tuple(row[key] for key in keys))
    assert union == first
