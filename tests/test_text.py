"""Whole numbers and lists as users write them: ASCII digits within 64 bits, and nothing else."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advpure.base.errors import BadInput
from advpure.base.text import (
    digits,
    read_natural,
    read_seed,
    read_shard,
    read_whole,
    several,
)
from advpure.base.validation import whole
from advpure.data.subsets import is_whole, parse_subset

SIZES = {"test": 20, "train": 50}


@given(st.text(max_size=30))
def test_digits_are_what_int_reads_of_ascii_digits_alone(text: str) -> None:
    expected = int(text) if re.fullmatch("[0-9]+", text) else None
    assert digits(text) == (expected if expected is None else min(expected, 10**20))


@pytest.mark.parametrize("text", ["²", "١٢", "-1", "+1", "1_0", "1.0", "", " ", "x", "½"])
def test_other_digits_and_signs_are_no_whole_numbers(text: str) -> None:
    with pytest.raises(BadInput, match="is not a whole number"):
        read_whole(text, "seed")
    with pytest.raises(BadInput, match=r"seeds? .* (is not a whole number|empty entry)"):
        several(f"1,{text}", read_seed, "seeds", "write 0,1,2")


def test_numbers_of_any_length_end_in_one_line() -> None:
    for count in (20, 5000, 10**6):
        with pytest.raises(BadInput, match="is too large for 64 bits") as refusal:
            read_whole("9" * count, "seed")
        assert len(str(refusal.value)) < 200
    assert read_seed("18446744073709551615") == read_seed(2**64 - 1) == 2**64 - 1
    with pytest.raises(BadInput, match=r"is too large for 64 bits|from 0 to 2\*\*64 - 1"):
        read_seed(2**64)
    assert (read_natural("7", "t"), read_natural(7, "t")) == (7, 7)


def test_lists_are_values_text_or_arrays() -> None:
    def read(one: object) -> int:
        return whole(one, "seed")

    import numpy as np
    import torch

    for given_ in (3, np.int64(3), np.array(3), torch.tensor(3), [3], (3,), np.array([3])):
        assert several(given_, read, "seeds", "write 0") == (3,)
    assert several(range(3), read, "seeds", "write 0") == (0, 1, 2)
    for bad, words in (
        ([], "is empty"),
        ([1, 1], "repeat"),
        ("1,,2", "empty entry"),
        ("", "empty"),
    ):
        with pytest.raises(BadInput, match=words):
            several(bad, read_seed, "seeds", "write 0")


@pytest.mark.parametrize("text", ["1/0", "0/1", "3/2", "²/2", "1", "1/", "/2", f"1/{10**30}"])
def test_shards_are_i_of_k(text: str) -> None:
    assert read_shard(" 2 / 3 ") == (2, 3)
    with pytest.raises(BadInput, match="shard"):
        read_shard(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"first-{10**30}", "asks for image 20, but the test split has 20"),
        ("first-10000000000", "asks for image 20, but the test split has 20"),
        (f"0:{10**30}", "asks for image 20, but"),
        ("25:30", "asks for image 25, but the test split has 20"),
        (f"{10**30}:{10**31}", "is empty"),
        ("7:3", "is empty"),
        ("first-0", "is empty"),
        ("first-²", "is not understood"),
        ("every-0th", "is not understood"),
        ("every-²th", "is not understood"),
        ("", "is empty; name one"),
        ("a" * 5000, "is not understood"),
        ("x\x00y", "has control characters"),
    ],
)
def test_subsets_are_checked_before_their_positions_are_listed(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        parse_subset(text, SIZES)
    assert len(str(refusal.value)) < 300


def test_files_of_indices_hold_ascii_digits_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "list"
    for content, words in (
        (b"1\n\xb2\n", "is no text in UTF-8"),
        ("1\n²\n".encode(), "line 2, '\u00b2', is not an index"),
        (f"{10**30}\n".encode(), "asks for image a whole number of 67 bits"),
        (b"20\n", "asks for image 20, but the test split has 20"),
        (b"1\n1\n", "repeats an index"),
        (b"# none\n", "is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=words):
            parse_subset(str(path), SIZES)
    path.write_bytes(b"\xef\xbb\xbf3 # three\n1\n")
    assert parse_subset(f"train/{path}", SIZES).indices.tolist() == [3, 1]


def test_a_choice_of_images_is_no_whole_split() -> None:
    assert [is_whole(text) for text in ("test", "train", "first-5", "train/first-5")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert parse_subset("every-20th", {"test": 10**9}).indices[-1] == 10**9 - 20
    assert parse_subset(f"every-{10**40}th", SIZES).indices.tolist() == [0]
