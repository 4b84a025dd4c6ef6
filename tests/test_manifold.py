"""Directions along and across the data: spans by numpy, laws of the draws."""

import numpy as np
import pytest
import torch
from torch import Tensor

from advpure.analysis.metrics.references import choose_reference, load_reference
from advpure.analysis.steps.manifold import (
    ManifoldSettings,
    across,
    along,
    local_spans,
    share_along,
)
from advpure.base.errors import BadInput

SMALL = ManifoldSettings(neighbours=6, components=3)


def _points(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_spans_are_the_principal_directions_of_the_nearest_images() -> None:
    images, reference = _points(2, 1), _points(40)
    spans = local_spans(images, reference, SMALL)
    points = reference.double().flatten(1).numpy()
    for image, span in zip(images.double().flatten(1).numpy(), spans, strict=True):
        near = points[np.argsort(np.linalg.norm(points - image, axis=1))[:6]]
        _, vectors = np.linalg.eigh(np.cov(near.T))
        overlap = span.numpy() @ vectors[:, ::-1][:, :3]
        assert np.abs(overlap) == pytest.approx(np.eye(3), abs=1e-9)


def test_differences_span_the_way_to_the_nearest_images() -> None:
    images, reference = _points(1, 1), _points(40)
    settings = ManifoldSettings(span="differences", neighbours=6, components=2)
    span = local_spans(images, reference, settings)[0]
    gaps = (reference - images).double().flatten(1)
    nearest = gaps[gaps.norm(dim=1).argsort()[:2]]
    assert share_along(span, nearest).tolist() == pytest.approx([1.0, 1.0])
    assert (span @ span.T - torch.eye(2)).abs().max() < 1e-12


def test_the_image_itself_is_no_neighbour() -> None:
    reference = _points(7)
    assert torch.equal(
        local_spans(reference[:1], reference, SMALL),
        local_spans(reference[:1], reference[1:], SMALL),
    )


def test_draws_lie_in_the_span_or_across_it() -> None:
    spans = local_spans(_points(3, 1), _points(40), SMALL)
    ids, draws = [4, 9, 2], [0, 0, 7]
    inside, outside = (draw(spans, 0, ids, draws) for draw in (along, across))
    for k in range(3):
        assert float(share_along(spans[k], inside[k : k + 1])) == pytest.approx(1.0, abs=1e-12)
        assert float(share_along(spans[k], outside[k : k + 1])) < 1e-28
    for rows in (inside, outside):
        assert rows.norm(dim=1).tolist() == pytest.approx([1.0] * 3)
    assert torch.equal(along(spans[1:2], 0, [9], [0]), inside[1:2])
    assert not torch.equal(along(spans[1:2], 1, [9], [0]), inside[1:2])


def test_draws_are_isotropic_in_their_space() -> None:
    span, count = torch.eye(3, 12).double().expand(3000, 3, 12), 3000
    for draw, places, size in ((along, slice(0, 3), 3), (across, slice(3, 12), 9)):
        rows = draw(span, 0, [0] * count, list(range(count)))[:, places]
        second = (rows.T @ rows / count).numpy()
        # A coordinate's square has variance 2 (k - 1) / (k^2 (k + 2)), a product of two
        # 1 / (k (k + 2)): at most 0.09 for k = 3. Alpha 1e-5 over 90 entries: 5.3 of them.
        assert second == pytest.approx(np.eye(size) / size, abs=5.3 * (0.09 / count) ** 0.5)
        mean = rows.mean(0).tolist()
        assert mean == pytest.approx([0.0] * size, abs=5.3 * (1 / size / count) ** 0.5)


def test_a_random_direction_has_the_share_of_dimensions() -> None:
    rows = torch.randn(4000, 12, generator=torch.Generator().manual_seed(0)).double()
    shares = share_along(torch.eye(3, 12).double(), rows)
    # Beta(3/2, 9/2): mean 1/4, variance 0.027.
    assert float(shares.mean()) == pytest.approx(0.25, abs=4.42 * (0.027 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"neighbours": 0}, "not a whole number of 1 or more"),
        ({"components": True}, "not a whole number of 1 or more"),
        ({"components": 50}, "use at most 49"),
        ({"span": "tangent"}, "known: principal, differences"),
    ],
)
def test_settings_that_make_no_span_are_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ManifoldSettings(**more)  # type: ignore[arg-type]


def test_images_that_make_no_span_are_refused() -> None:
    with pytest.raises(BadInput, match="fewer than the 6"):
        local_spans(_points(1, 1), _points(4), SMALL)
    with pytest.raises(BadInput, match="do not match"):
        local_spans(_points(1, 1), torch.rand(9, 1, 2, 2), SMALL)
    flat = torch.cat([_points(20)[..., :1, :2], torch.zeros(20, 1, 1, 10)], dim=3)
    with pytest.raises(BadInput, match="span 2 dimensions"):
        local_spans(torch.ones(1, 1, 1, 12), flat, SMALL)
    with pytest.raises(BadInput, match="do not fit into 2"):
        local_spans(torch.ones(1, 1, 1, 2), torch.rand(9, 1, 1, 2), SMALL)
    with pytest.raises(BadInput, match="no direction across"):
        across(torch.eye(2)[None], 0, [0], [0])


def test_references_are_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_reference("digits") == "train"
    assert choose_reference("digits", "none") is None
    assert choose_reference("digits", "train/first-9") == "train/first-9"
    assert choose_reference("cifar10-sample") is None
    assert load_reference("digits", "train/first-9").shape == (9, 1, 8, 8)
    monkeypatch.setattr("advpure.analysis.metrics.references._MOST_NUMBERS", 30_000)
    assert choose_reference("digits") == "train/every-3th"
    assert len(load_reference("digits", "train/every-3th")) < 30_000 / 64
    with pytest.raises(BadInput, match="reference images 'train' of cifar10-sample cannot be used"):
        load_reference("cifar10-sample", "train")
