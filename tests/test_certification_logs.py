"""Certified accuracy and logs: counted by hand, by numpy, and from published files if given.

``ADVPURE_CERTIFICATION_LOGS`` names a folder that holds public repositories as ``owner+name``
folders; without it the published logs are not read, and a synthetic one of 200 images stands in.
"""

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from advpure.analysis.certification.accuracy import (
    CertifiedImages,
    abstention,
    accuracy_curve,
    accuracy_lower_bound,
    average_certified_radius,
    bernstein_lower_bound,
    best_over,
    certified_accuracy,
    compare,
)
from advpure.analysis.certification.emulation import agreeing_samples, emulate, fitting_alpha
from advpure.analysis.certification.logs import HEADER, near_threshold, read_log, write_log
from advpure.analysis.certification.radius import ABSTAIN, bound_for, radius_of
from advpure.analysis.certification.sources import read_sources
from advpure.analysis.certification.two_stage import certify
from advpure.base.errors import BadInput
from advpure.statistics.rates import clopper_pearson_lower

FIXTURES = Path(__file__).parent / "fixtures"
SYNTHETIC = FIXTURES / "certification_log_sigma_0.50.tsv"
PUBLISHED = json.loads((FIXTURES / "certification_logs.json").read_text())
LOGS = os.environ.get("ADVPURE_CERTIFICATION_LOGS")
TINY = 1e-5


def certified(
    radii: list[float], right: list[bool], *, name: str = "x", first: int = 0
) -> CertifiedImages:
    ids = np.arange(first, first + len(radii))
    labels = ids % 7
    return CertifiedImages(
        name=name, ids=ids, labels=labels, predictions=np.where(right, labels, ABSTAIN),
        radii=np.array(radii, dtype=np.float64),
    )  # fmt: skip


def synthetic() -> str:
    """Make the log of 200 images: N = 100,000, sigma 0.5, radii printed with three digits."""
    draw = np.random.Generator(np.random.Philox(29))
    lines = ["\t".join(HEADER)]
    for image in range(0, 4000, 20):
        label = int(draw.integers(10))
        p = float(ndtr(draw.normal(1.1, 1.5)))
        right = draw.random() < 0.95
        found = certify(
            [0, 100], [0, hits := int(draw.binomial(10**5, p)), 10**5 - hits], sigma=0.5
        )
        answer = ABSTAIN
        if found.prediction != ABSTAIN:
            answer = label if right else (label + 1) % 10
        radius, seconds = f"{found.radius:.3}", draw.integers(10, 20)
        lines.append(
            f"{image}\t{label}\t{answer}\t{radius}\t{int(answer == label)}\t0:00:{seconds}"
        )
    return "\n".join(lines) + "\n"


# --- accuracy -------------------------------------------------------------------------------------


def test_accuracy_by_hand() -> None:
    images = certified([0.0, 0.3, 0.3, 0.9], [False, True, True, True])
    values = [certified_accuracy(images, r).value for r in (0.0, 0.3, 0.30001, 0.9, 1.0)]
    assert values == [0.75, 0.75, 0.25, 0.25, 0.0]
    assert certified_accuracy(images).n == 4
    assert abstention(images).value == 0.25
    assert average_certified_radius(images).value == pytest.approx(1.5 / 4)
    wrong = dataclasses.replace(images, predictions=images.labels + 1)
    assert certified_accuracy(wrong, 0.0).value == 0.0
    assert average_certified_radius(wrong).value == 0.0
    assert abstention(wrong).value == 0.0


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_curve_is_the_accuracy_at_every_radius(rows: list[tuple[float, bool]]) -> None:
    images = certified([radius for radius, _ in rows], [right for _, right in rows])
    radii, counts = accuracy_curve(images)
    assert radii[0] == 0.0
    assert (np.diff(radii) > 0).all()
    for radius, count in zip(radii, counts, strict=True):
        assert certified_accuracy(images, radius).value * len(images) == pytest.approx(count)
    area = float((np.diff(radii) * counts[1:]).sum()) / len(images)
    assert area == pytest.approx(average_certified_radius(images).value, abs=1e-9)
    assert (np.diff(counts) <= 0).all()


def test_best_over_is_the_largest_per_radius() -> None:
    low = certified([0.5, 0.5, 0.5], [True, True, True], name="low")
    high = certified([2.0, 0.0, 0.0], [True, False, False], name="high")
    best = best_over([low, high], [0.0, 0.5, 1.0])
    assert [(each.name, each.rate.value) for each in best] == [
        ("low", 1.0), ("low", 1.0), ("high", pytest.approx(1 / 3)),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="have no best"):
        best_over([], [0.0])


def test_paired_differences() -> None:
    first = certified([1.0] * 30, [True] * 30)
    second = certified([0.5] * 30, [True] * 30, first=10)
    ((_, equal), (_, apart)) = compare(first, second, [0.25, 0.75])
    assert (equal.n, equal.value, equal.p_value) == (20, 0.0, 1.0)
    assert (apart.n, apart.value) == (20, 1.0)
    assert apart.low > 0
    with pytest.raises(BadInput, match="have no image in common"):
        compare(first, certified([1.0], [True], first=99), [0.0])
    other = dataclasses.replace(first, labels=first.labels + 1)
    with pytest.raises(BadInput, match="image 0 has other labels"):
        compare(first, other, [0.0])


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("n", [100, 10_000])
def test_lower_bounds_over_images_hold(n: int, alpha: float) -> None:
    """If every one of n certificates is wrong with probability alpha, and all are claimed."""
    for failure in (0.05, 0.001):
        for bound in (accuracy_lower_bound, bernstein_lower_bound):
            claimed = bound(n, n, alpha=alpha, failure=failure)
            most = math.ceil((1 - claimed) * n + 1e-9) - 1
            assert stats.binom.sf(most, n, alpha) <= failure * (1 + 1e-9)
        exact = accuracy_lower_bound(n, n, alpha=alpha, failure=failure)
        assert exact >= bernstein_lower_bound(n, n, alpha=alpha, failure=failure)
    with_choices = accuracy_lower_bound(n, n, alpha=alpha, choices=100)
    assert with_choices <= accuracy_lower_bound(n, n, alpha=alpha)


def test_the_bound_printed_without_the_2_fails_too_often() -> None:
    n, alpha, failure = 10_000, 0.1, 0.01
    log = math.log(1 / failure)
    slack = alpha + math.sqrt(alpha * (1 - alpha) * log / n) + log / (3 * n)
    assert stats.binom.sf(math.floor(slack * n), n, alpha) > failure


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.array([-1, 0])}, "label -1 of x is no class, since -1 means"),
        ({"ids": np.array([4, 4])}, "image 4 of x is there twice"),
        ({"radii": np.array([0.1, -0.2])}, "radius -0.2 of x is negative"),
        ({"radii": np.array([0.1, np.nan])}, "radius nan of x"),
        ({"radii": np.array([0.1])}, "are no certificates"),
    ],
)
def test_columns_are_checked(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        dataclasses.replace(certified([0.1, 0.2], [True, True]), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"failure": 1.0}, {"choices": 0}])
def test_bounds_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=r"outside|not above 0 and below 1|not a whole number of 1"):
        accuracy_lower_bound(5, 10, **{"alpha": 0.001, **wrong})  # type: ignore[arg-type]


# --- logs -----------------------------------------------------------------------------------------


def test_the_synthetic_log_is_what_the_generator_makes() -> None:
    assert SYNTHETIC.read_text() == synthetic()
    assert len(SYNTHETIC.read_text().splitlines()) == 201


@pytest.mark.parametrize("radius", [0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
def test_the_synthetic_log_is_read_as_numpy_reads_it(radius: float) -> None:
    images = read_log(SYNTHETIC)
    table = np.loadtxt(SYNTHETIC, skiprows=1, usecols=range(5))
    expected = ((table[:, 1] == table[:, 2]) & (table[:, 3] >= radius)).mean()
    assert certified_accuracy(images, radius).value == expected
    assert (images.sigma, len(images)) == (0.5, 200)
    assert images.ids.tolist() == list(range(0, 4000, 20))
    assert images.times[0].startswith("0:00:")
    assert not images.notes


def dialect(folder: Path, text: str, name: str = "log.tsv") -> CertifiedImages:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return read_log(path)


ROWS = ["0\t3\t3\t0.5\t1\t0:00:01", "1\t4\t2\t0.25\t0\t0:00:02", "2\t5\t-1\t0.0\t0\t0:00:03"]
TEXT = "\n".join(["\t".join(HEADER), *ROWS]) + "\n"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (TEXT, None),
        (TEXT.replace("\n", "\r\n"), None),
        ("\ufeff" + TEXT, None),
        (TEXT.replace("\t", "  "), None),
        (TEXT.removeprefix("\t".join(HEADER) + "\n"), None),
        (TEXT + "\n\n", None),
        (TEXT + "3\t1\t1\t0.", "its last line is cut off"),
        (TEXT.rstrip("\n") + "\n3\t1\t1\t0.33", "its last line is cut off"),
        (TEXT + TEXT, "3 lines are there twice"),
        (TEXT.replace("\t0\t0:00:02", "\t1\t0:00:02"), "running total"),
        (TEXT.replace("\t0.5\t1\t", "\t0.5\t1.0\t"), None),
        (
            "\n".join(row.split("\t", 1)[1] for row in ROWS),
            "no column idx; images are numbered by line",
        ),
        ("label predict radius correct\n3 3 0.5 1\n4 2 0.25 0\n5 -1 0.0 0\n", "no column idx"),
        (TEXT.replace("\t0:00:02", ""), None),
        ("radius\tpredict\tlabel\tidx\n0.5\t3\t3\t0\n0.25\t2\t4\t1\n0\t-1\t5\t2\n", None),
        ("idx\tlabel\tpredict\tradius\n0\t3\t3\t5e-1\n1\t4\t2\t.25\n2\t5\t-1\t0\n", None),
        (TEXT.replace("\t", ","), None),
        (TEXT.replace("\t", ", "), None),
        (TEXT.replace("\t1\t0:", "\tTrue\t0:").replace("\t0\t0:", "\tFALSE\t0:"), None),
        (
            TEXT.replace("5\t-1\t0.0\t0", "5\t-2\t0.0\t0"),
            "1 images with prediction -2 or radius -1",
        ),
        (TEXT.replace("5\t-1\t0.0\t0", "5\t5\t-1.0\t1"), "not certified at any radius"),
        (TEXT.replace("5\t-1\t0.0\t0", "5\t5\t-1\t0"), "not certified at any radius"),
        (
            "idx,original_idx,label,predict,radius\n7,0,3,3,.5\n8,1,4,2,.25\n9,2,5,-1,0\n",
            None,
        ),
        ("original_idx label predict radius\n0 3 3 .5\n1 4 2 .25\n2 5 -1 0\n", None),
    ],
    ids=range(24),
)
def test_dialects(tmp_path: Path, text: str, note: str | None) -> None:
    images = dialect(tmp_path, text)
    assert images.ids.tolist() == [0, 1, 2]
    assert images.labels.tolist() == [3, 4, 5]
    assert images.predictions.tolist() == [3, 2, ABSTAIN]
    assert images.radii.tolist() == [0.5, 0.25, 0.0]
    assert images.correct.tolist() == [True, False, False]
    assert images.sigma is None
    if note is None:
        assert not images.notes
    else:
        assert note in images.notes[0]


def test_an_abstention_with_a_radius_is_told(tmp_path: Path) -> None:
    images = dialect(tmp_path, TEXT.replace("5\t-1\t0.0\t0", "5\t-1\t0.5\t0"))
    assert "1 abstentions have a radius above 0; read as abstentions" in images.notes[0]
    assert images.correct.tolist() == [True, False, False]


def test_a_column_correct_that_contradicts_is_told_with_its_first_image(tmp_path: Path) -> None:
    said = TEXT.replace("\t1\t0:", "\tFalse\t0:").replace("\t0\t0:", "\tFalse\t0:")
    images = dialect(tmp_path, said)
    assert images.correct.tolist() == [True, False, False]
    told = "its column correct is not label = predict for 1 of 3 images, the first of them 0"
    assert [told in note for note in images.notes] == [True]


def test_the_positions_of_another_log_can_be_compared(tmp_path: Path) -> None:
    ours = dialect(tmp_path, TEXT, "ours.tsv")
    rows = "0,1,4,4,0.5\n1,2,5,5,0.1\n"
    theirs = dialect(tmp_path, "idx,original_idx,label,predict,radius\n" + rows, "theirs.csv")
    assert (theirs.ids.tolist(), theirs.by_line) == ([1, 2], False)
    [(_, difference)] = compare(ours, theirs, [0.0])
    assert (difference.n, difference.value) == (2, -1.0)


HEAD = "\t".join(HEADER) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (HEAD, "holds a header and no image"),
        ("idx\tlabel\tpredict\tcorrect\ttime\n0\t1\t1\t1\t0:00:01\n", "no column radius.*predict"),
        ("a\tb\tc\n1\t2\t3\n", "has 3 columns and no header"),
        ("hello world\n", "has 2 columns and no header"),
        (HEAD + "0\t1\t1\tx\t1\t0\n" + ROWS[1], "line 2 of .* has no number in column radius"),
        (HEAD + "0\t1\n" + ROWS[1], "line 2 of .* has 2 of 6 columns"),
        (HEAD + ROWS[0] + "\n" + "1\t-1\t-1\t0\t0\t0\n" + ROWS[2], "label -1, which is no class"),
        (HEAD + "0\t1\t-3\t0\t0\t0\n" + ROWS[2], "prediction -3, which is neither"),
        (HEAD + "0\t1\t1\t-0.5\t0\t0\n" + ROWS[2], "radius -0.5, which is negative"),
        (HEAD + "0\t1\t1\tnan\t0\t0\n" + ROWS[2], "radius nan, which is negative or not finite"),
        (HEAD + "0.5\t1\t1\t0.1\t0\t0\n" + ROWS[2], "no number in column idx"),
        (HEAD + ROWS[0] + "\n" + ROWS[0].replace("0.5", "0.6") + "\n", "image 0 .* is there twice"),
        (HEAD + ROWS[0] + "\t9\n" + ROWS[1], "has 7 of 6 columns"),
        (HEAD + "0\t²\t1\t0\t0\t0\n" + ROWS[2], "has no number in column label"),
        (HEAD + "0\t\u0661\t1\t0\t0\t0\n" + ROWS[2], "has no number in column label"),
        (HEAD + "0\t1_0\t1\t0\t0\t0\n" + ROWS[2], "has no number in column label"),
        (HEAD + "9" * 30 + "\t1\t1\t0\t0\t0\n" + ROWS[2], "has no number in column idx"),
        (HEAD + "0\t1\t1\t0\tperhaps\t0\n" + ROWS[2], "has no number in column correct"),
        ("idx label label predict radius\n0 1 1 1 0.5\n", "has two columns 'label'"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        dialect(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_radius_that_was_cut_is_never_read(tmp_path: Path) -> None:
    four = "3 3 0.5 1\n4 2 0.25 0\n"
    cut = dialect(tmp_path, four + "5 5 1.2")  # of 1.2e-05: larger than what was meant
    assert cut.ids.tolist() == [0, 1]
    assert any("its last line is cut off" in note for note in cut.notes)
    three = "label\tpredict\tradius\n3\t3\t0.5\n4\t4\t1.2"
    assert any("its radius may be cut off" in note for note in dialect(tmp_path, three).notes)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_bytes(b"\x80\x81\x00\xff")
    with pytest.raises(BadInput, match="is no text"):
        read_log(tmp_path / "log.tsv")
    with pytest.raises(BadInput, match="is not there"):
        read_log(tmp_path / "none.tsv")
    with pytest.raises(BadInput, match="is a folder"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        ("noise_0.25", 0.25), ("noise_0.25/test/sigma_0.50", 0.5), ("sigma_1.00.tsv", 1.0),
        ("noise_0.25_adv", 0.25), ("certify.tsv", None), ("sigma_0.5/x.tsv", 0.5),
    ],
)  # fmt: skip
def test_noise_level_from_the_path(tmp_path: Path, name: str, sigma: float | None) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    assert dialect(tmp_path, TEXT, name).sigma == sigma
    assert read_log(tmp_path / name, sigma=2.0).sigma == 2.0


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    radii = [0.1, 1 / 3, 0.0, math.pi, 1e-9]
    images = certified(radii, [True, False, True, True, True])
    read = read_log(write_log(images, tmp_path / "out.tsv"))
    for column in ("ids", "labels", "predictions", "radii"):
        assert getattr(read, column).tolist() == getattr(images, column).tolist()
    assert (tmp_path / "out.tsv").read_text().splitlines()[0].split("\t") == list(HEADER)
    assert "\t-\n" in (tmp_path / "out.tsv").read_text()
    again = read_log(write_log(read_log(SYNTHETIC), tmp_path / "again.tsv"))
    assert again.radii.tolist() == read_log(SYNTHETIC).radii.tolist()
    assert again.times == read_log(SYNTHETIC).times


def test_rounded_radii_near_a_threshold_are_counted() -> None:
    images = certified([0.25, 0.251, 0.5, 0.123456], [True, True, False, True])
    assert near_threshold(images, (0.0, 0.25, 0.5)) == {0.25: 1}


# --- emulation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.25, 1.0])
@pytest.mark.parametrize("hits", [50_100, 60_000, 84_134, 99_000, 99_997, 100_000])
def test_counts_are_found_back(hits: int, sigma: float) -> None:
    radius = radius_of(clopper_pearson_lower(hits, 10**5, 0.001), sigma)
    if radius > 0:
        assert agreeing_samples(radius, 10**5, 0.001, sigma) == hits
        printed = agreeing_samples(float(f"{radius:.3}"), 10**5, 0.001, sigma)
        assert abs(bound_for(radius, sigma) - clopper_pearson_lower(printed, 10**5, 0.001)) < 2e-3


def test_emulated_radii_are_those_of_fewer_samples() -> None:
    draw = np.random.Generator(np.random.Philox(3))
    hits = [int(k) for k in draw.integers(40_000, 100_001, 60)]
    made = [certify([9, 0], [k, 10**5 - k], sigma=0.5) for k in hits]
    images = certified([each.radius for each in made], [each.prediction == 0 for each in made])
    found = emulate(images, samples=10**5, to=10**4, sigma=0.5)
    for k, before, radius, answer in zip(hits, made, found.radii, found.predictions, strict=True):
        fewer = int(np.round(k / 10**5 * 10**4))
        direct = certify([9, 0], [fewer, 10**4 - fewer], sigma=0.5)
        if before.prediction == ABSTAIN:
            assert (radius, answer) == (0.0, ABSTAIN)
        else:
            assert radius == pytest.approx(direct.radius)
            assert (answer == ABSTAIN) == (direct.prediction == ABSTAIN)
    assert (found.radii <= images.radii).all()
    assert "emulated with 10,000 of 100,000 samples" in found.notes[0]
    assert emulate(images, samples=10**5, to=10**5, sigma=0.5).radii == pytest.approx(images.radii)


def test_emulation_needs_to_know_the_log() -> None:
    images = certified([0.9], [True])
    with pytest.raises(BadInput, match="does not say its sigma"):
        emulate(images, samples=10**5, to=10**4)
    with pytest.raises(BadInput, match=r"is above 0\.6158, the most that 1,000 samples reach"):
        emulate(images, samples=1000, to=100, sigma=0.25)
    with pytest.raises(BadInput, match=r"at alpha 0\.001; alpha 0\.026 fits, or give the sigma"):
        emulate(images, samples=100, to=10, sigma=0.5)
    assert emulate(images, samples=100, to=100, sigma=0.5, alpha=0.026).radii[0] > 0.89
    with pytest.raises(BadInput, match="give the sigma and samples of the log, with which no"):
        emulate(images, samples=1000, to=100, sigma=0.25)
    assert fitting_alpha(0.9, 100, 0.5) == 0.026
    assert agreeing_samples(0.9, 100, 0.026, 0.5) == 100
    with pytest.raises(BadInput, match="samples 0 is not a whole number of 1 or more"):
        emulate(images, samples=0, to=100, sigma=0.25)


# --- published logs -------------------------------------------------------------------------------


def published(entry: dict[str, str]) -> Path:
    if LOGS is None:
        pytest.skip("ADVPURE_CERTIFICATION_LOGS names no folder of published logs")
    path = Path(LOGS) / entry["repository"] / entry["path"]
    if not path.is_file():
        pytest.skip(f"{entry['repository']} is not there")
    return path


@pytest.mark.parametrize("entry", PUBLISHED["logs"], ids=lambda entry: entry["path"][-40:])
def test_published_logs_give_their_published_accuracies(entry: dict[str, dict[str, float]]) -> None:
    images = read_log(published(entry))  # type: ignore[arg-type]
    assert len(images) == entry["images"]
    for radius, percent in entry["at"].items():
        value = 100 * certified_accuracy(images, float(radius)).value
        assert value == pytest.approx(percent, abs=0.005)


def test_published_logs_read_as_fewer_samples() -> None:
    expected = PUBLISHED["emulated"]
    entries = [
        e for e in PUBLISHED["logs"] if "locuslab" in e["repository"] and "cifar" in e["path"]
    ]
    assert len(entries) == 3
    options = {key: expected[key] for key in ("samples", "alpha", "to", "to_alpha")}
    logs = [read_log(published(entry)) for entry in entries]
    curves = [emulate(log, **options) for log in logs]
    with pytest.raises(BadInput, match="give the sigma, samples and alpha of the log"):
        emulate(logs[0], samples=expected["samples"], to=expected["to"], alpha=0.001)
    for radius, percent in expected["at"].items():
        (best,) = best_over(curves, [float(radius)])
        assert 100 * best.rate.value == pytest.approx(percent, abs=0.005)


def test_published_logs_of_consistency_training_read_as_fewer_samples() -> None:
    expected = PUBLISHED["emulated_consistency"]
    curves = []
    for path in expected["paths"]:
        (entry,) = (e for e in PUBLISHED["logs"] if e["path"].endswith(path))
        log = read_log(published(entry))
        kept = log.ids % expected["stride"] == 0
        columns = {name: getattr(log, name)[kept] for name in ("ids", "labels", "predictions")}
        fewer = dataclasses.replace(log, **columns, radii=log.radii[kept], times=())
        options = {key: expected[key] for key in ("samples", "alpha", "to")}
        curves.append(emulate(fewer, **options))
        assert len(fewer) == 500
    for radius, percent in expected["at"].items():
        (best,) = best_over(curves, [float(radius)])
        assert 100 * best.rate.value == pytest.approx(percent, abs=0.2 + 1e-9)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-3\t1\t1\t0.5\t1\t0:00:01\n", "has idx -3"),
        ("3\t1\t1\t0.5\t1\tgarbage\n", "has time 'garbage'"),
        ("3\t1\t1\t0.5\t1\t0:00:01\n", "which no number of samples certifies; the sigma must be"),
    ],
)
def test_what_no_program_can_have_meant_is_refused(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("\t".join(HEADER) + "\n" + line)
    with pytest.raises(BadInput, match=words):
        read_log(path, sigma=0.001)


@pytest.mark.parametrize("time", ["-", "12", "1.5e-3", "0:00:05.672193", "1 day, 0:00:01"])
def test_times_of_every_program_are_read(tmp_path: Path, time: str) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("\t".join(HEADER) + f"\n3\t1\t1\t0.5\t1\t{time}\n")
    assert read_log(path, sigma=0.25).times == (time,)


def test_logs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "a.tsv", tmp_path / "b.tsv"
    for path, label in ((one, 1), (two, 2)):
        path.write_text("\t".join(HEADER) + f"\n3\t{label}\t1\t0.5\t1\t-\n")
    with pytest.raises(BadInput, match=r"image 3 has label 1 in a and 2 in b"):
        read_sources([one, two])
    with pytest.raises(BadInput, match="is given twice"):
        read_sources([one, tmp_path / ".." / tmp_path.name / "a.tsv"])
