"""Sweep files: what is read, in which order points come, and what is refused before a run."""

from pathlib import Path
from typing import Any

import pytest

from advpure.base.errors import BadInput
from advpure.sweeps.axes import Axis, product
from advpure.sweeps.index import Index
from advpure.sweeps.points import Point, drafts, nested, plan
from advpure.sweeps.strict_yaml import read_yaml, read_yaml_file
from advpure.sweeps.sweep import Sweep, load_sweep, parse_sweep

TINY: dict[str, Any] = {"dataset": "digits", "n": 2}


def sweep(**found: Any) -> Sweep:
    return parse_sweep(found, name="law", where="law.yaml")


def at(swept: Sweep) -> list[dict[str, Any]]:
    return [dict(draft.at) for draft in drafts(swept)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:50", "10:50"), ("010", 10), ("no", "no"), ("on", "on"), ("true", True), ("1e-3", 1e-3),
        ("8/255", "8/255"), ("~", None), ("none", "none"), ("-3", -3), (".5", 0.5), ("1.", 1.0),
        ("2001-01-01", "2001-01-01"), ("'12'", "12"), ("[1, 2]", [1, 2]), ("0x10", "0x10"),
    ],
)  # fmt: skip
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    found = read_yaml(f"key: {text}", "a file")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "line 2, column 1 is no usable YAML (key 'a' stands twice)"),
        ("a: [1", "line 1"),
        ("- 1", "holds no settings"),
        ("", "holds no settings"),
        ("1: 2", "key 1 is no text"),
        ("a: !!python/object/apply:os.system [ls]", "line 1"),
        ("a: &x 1", "line 1, column 4 is no usable YAML (an anchor or alias; write its value)"),
        ("a: *x", "line 1, column 4 is no usable YAML (an anchor or alias; write its value)"),
        ("a: &'x'\nb: 1", "an anchor or alias"),
        ('a: "\\UFFFFFFFF"', "is no usable YAML"),
        ('a: "\\U00110000"', "is no usable YAML"),
        ("%YAML 1.11\n---\na: 1", "is no usable YAML"),
        ("a: >-\n \n   c", "is no usable YAML ("),
        ("a: \x01", "is no usable YAML"),
        ("a: b\u2028", "holds U+0085, U+2028 or U+2029"),
        ("a: 1\n---\nb: 2", "line 2, column 1 is no usable YAML (a second document)"),
        ("n: !!int abc", "line 1, column 4 is no usable YAML (the tag 'tag:yaml.org,2002:int';"),
        ("n: !!binary QUJD", "the tag"),
        ("n: !!set {a}", "the tag"),
        ("n: !mine 3", "the tag '!mine'"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]", "line 1, column 4"),
        ("a: " + "[" * 2000 + "]" * 2000, "nested more than 20 levels deep"),
        ("a:" + "".join(f"\n{' ' * k}b:" for k in range(1, 400)), "nested more than 20"),
        ("n: 9223372036854775808", "'9223372036854775808' is too large for 64 bits"),
        ("n: -" + "9" * 5000, "is too large for 64 bits"),
        ("eps: 1e999", "'1e999' is not finite"),
        ("'': 1", "key '' is empty"),
        ("? [a]\n: 1", "is no text"),
        ("x" * 300_000, "is longer than 262,144 characters"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_yaml(text, "a file")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_yaml_file(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is no text"):
        read_yaml_file(tmp_path / "binary.yaml")
    with pytest.raises(BadInput, match="is no file"):
        read_yaml_file(tmp_path)
    with pytest.raises(BadInput, match="is no file"):
        read_yaml_file(Path("/dev/zero"))
    (tmp_path / "long.yaml").write_bytes(b"#" * 10_000_000)
    with pytest.raises(BadInput, match="is longer than"):
        read_yaml_file(tmp_path / "long.yaml")


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([1, 2], (0, 0)), ([1, 2, 3], (0, 1, 0)), (["1/255", "2/255", "4/255", 0.1], (0, 1, 2, 0)),
        (list(range(9)), (0, 3, 2, 3, 1, 3, 2, 3, 0)), (["a", "b", "c"], (0, 0, 0)),
        ([True, False, 1], (0, 0, 0)),
    ],
)  # fmt: skip
def test_levels_bisect_an_ordered_axis(values: list[Any], levels: tuple[int, ...]) -> None:
    assert Axis(tuple({"x": value} for value in values)).levels == levels


def test_corners_come_first_and_every_prefix_is_a_coarse_grid() -> None:
    axes = [Axis(tuple({name: k} for k in range(5))) for name in ("x", "y")]
    points = sorted(product(axes), key=lambda found: found[0])
    ordered = [(place["x"], place["y"]) for _, place in points]
    assert set(ordered[:4]) == {(0, 0), (0, 4), (4, 0), (4, 4)}
    assert set(ordered[:9]) == {(x, y) for x in (0, 2, 4) for y in (0, 2, 4)}
    assert len(set(ordered)) == 25


def test_blocks_take_turns_at_the_same_point() -> None:
    law = sweep(
        base=TINY,
        grid={"defense": ["ddim", "ddpm"], "t": [10, 20, 30]},
        blocks={"cr": {}, "attack": {}},
    )
    found = [(draft.verb, draft.at["t"]) for draft in drafts(law)]
    assert found[:4] == [("cr", 10), ("attack", 10), ("cr", 30), ("attack", 30)]
    assert found[-4:] == [("cr", 20), ("attack", 20)] * 2
    assert len(found) == 12


def test_grid_and_zip_make_the_product_of_their_axes() -> None:
    law = sweep(
        verb="attack", base=TINY, grid={"t": [10, 20]},
        zip={"attack_options.loss": ["ce", "margin"], "seed": [0, 1]},
    )  # fmt: skip
    assert at(law) == [
        {"t": t, "attack_options.loss": loss, "seed": seed}
        for t in (10, 20)
        for loss, seed in (("ce", 0), ("margin", 1))
    ]
    settings = drafts(law)[1].settings
    assert (settings.t, settings.seed, settings.attack_options) == (10, 1, {"loss": "margin"})


def test_a_block_replaces_what_the_file_says_for_all() -> None:
    law = sweep(
        base={**TINY, "seed": 3}, grid={"t": [10, 20], "defense": ["ddpm", "ddim"]},
        blocks={
            "fixed": {"verb": "attack", "base": {"t": 50}},
            "wider": {"verb": "attack", "grid": {"t": [1, 2, 3]}, "base": {"seed": 4}},
        },
    )  # fmt: skip
    by_block = {
        name: [draft for draft in drafts(law) if draft.block == name] for name in ("fixed", "wider")
    }
    assert [dict(draft.at) for draft in by_block["fixed"]] == [
        {"defense": "ddpm"},
        {"defense": "ddim"},
    ]
    assert {draft.settings.t for draft in by_block["fixed"]} == {50}
    assert {draft.settings.seed for draft in by_block["wider"]} == {4}
    assert len(by_block["wider"]) == 6


def test_an_axis_of_mappings_replaces_what_the_file_says_for_all() -> None:
    axis = {"attack_options": [{"steps": 1}, {"steps": 2}]}
    shared = {"attack_options.steps": 9, "attack_options.loss": "ce", **TINY}
    for found in (
        {"verb": "attack", "base": shared, "grid": axis},
        {"blocks": {"attack": {"grid": axis}}, "base": shared},
    ):
        options = [draft.settings.attack_options for draft in drafts(sweep(**found))]
        assert options == [{"steps": 1, "loss": "ce"}, {"steps": 2, "loss": "ce"}]


def test_nested_options_join_mappings_and_dotted_names() -> None:
    assert nested({"attack_options": {"steps": 3}, "attack_options.loss": "ce"}) == {
        "attack_options": {"steps": 3, "loss": "ce"}
    }
    with pytest.raises(BadInput, match="does not fit n = 3"):
        nested({"n": 3, "n.x": 1})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "needs either a verb or blocks"),
        ({"verb": "cr", "blocks": {"cr": {}}}, "needs either a verb or blocks"),
        ({"verb": "cr", "gird": {}}, "key 'gird' is not known; did you mean grid?"),
        ({"blocks": []}, "are no mapping"),
        ({"verb": ["cr"]}, "verb ['cr'] is not a text"),
        ({"verb": None}, "verb None is not a text"),
        ({"verb": ""}, "verb '' is empty"),
        ({"verb": "cr", "about": 3}, "about 3 is not a text"),
        ({"blocks": {"cr": {"verb": ["cr"]}}}, "verb ['cr'] is not a text"),
        ({"blocks": {"": {}}}, "block '' is not a name"),
        ({"blocks": {"cr": []}}, "block cr = [] is no mapping"),
        ({"verb": "cr", "base": False}, "base False is no mapping"),
        ({"verb": "cr", "grid": {"t": list(range(20_000))}}, "t of 20,000 values is too long"),
        (
            {"verb": "cr", "grid": {name: list(range(10)) for name in "abcdefghij"}},
            "with 10,000,000,000 points is too large to plan; sweep 10,000 or fewer in one file",
        ),
        ({"blocks": {"cr": 3}}, "block cr = 3 is no mapping"),
        ({"blocks": {"cr": {"bsae": {}}}}, "did you mean base?"),
        ({"verb": "cr", "base": [1]}, "base [1] is no mapping"),
        ({"verb": "cr", "grid": {"t": 10}}, "t = 10 is no list of values; write t: [10]"),
        ({"verb": "cr", "grid": {"t": []}}, "t = [] is no list"),
        ({"verb": "cr", "grid": {"t": [10, 10]}}, "t 10 repeats a value"),
        ({"verb": "cr", "grid": {"sigma": [0.25, "0.25"]}}, "repeats a value"),
        ({"verb": "cr", "grid": {"eps": ["8/255", 8 / 255]}}, "repeats a value"),
        (
            {"verb": "attack", "grid": {"a.steps": [1, 2], "a": [{"steps": 3}]}},
            "'a.steps' varies along two axes",
        ),
        ({"verb": "cr", "grid": [1]}, "grid [1] is no mapping"),
        (
            {"verb": "cr", "zip": {"t": [1, 2], "n": [1]}},
            "t 2, n 1 does not advance together",
        ),
        ({"verb": "cr", "zip": "t"}, "is no mapping"),
        (
            {"verb": "cr", "zip": {"t": [1, 2, 1], "n": [3, 3, 3]}},
            "zip: t 1, n 3 repeats a value; give each value once",
        ),
        (
            {"verb": "cr", "zip": [{"eps": ["8/255", 8 / 255], "n": [3, "3"]}]},
            "repeats a value; give each value once",
        ),
        (
            {"verb": "cr", "grid": {"options": [{"a": 1, "b": 2}, {"b": "2", "a": "1"}]}},
            "repeats a value; give each value once",
        ),
        (
            {"verb": "attack", "base": {"a.b": 1, "a": {"b": 2}}},
            "base a.b stands there by its dotted name and in a mapping; keep one",
        ),
        (
            {"blocks": {"attack": {"base": {"a": {"b": 2}, "a.b": 2}}}},
            "base a.b stands there by its dotted name and in a mapping; keep one",
        ),
        (
            {"blocks": {"attack": {"base": {"a.b": 1}, "grid": {"a": [{"b": 2}, {"b": 3}]}}}},
            "option 'a.b' stands in base and in an axis",
        ),
        ({"verb": "cr", "grid": {"t": [1, 2]}, "zip": {"t": [1, 2]}}, "'t' varies along two axes"),
        (
            {"blocks": {"cr": {"base": {"t": 3}, "grid": {"t": [1, 2]}}}},
            "option 't' stands in base and in an axis",
        ),
    ],
)
def test_a_sweep_of_another_form_is_refused(found: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        sweep(**found)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x" * 200, True, 3, None, ["a"]])
def test_a_name_that_is_no_folder_is_refused(name: Any) -> None:
    with pytest.raises(BadInput, match="is not a name; use letters"):
        parse_sweep({"verb": "cr"}, name=name, where="law.yaml")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"verb": "atack"}, "verb 'atack' is not known; did you mean attack?"),
        ({"verb": "cr", "base": {"pertubations": 3}}, "did you mean perturbations?"),
        ({"verb": "cr", "grid": {"t": [10, "ten"]}}, "t 'ten' of cr is not a whole number"),
        ({"verb": "attack", "base": {"randomness": "fixd"}}, "randomness 'fixd' of attack"),
        ({"blocks": {"law": {"verb": "cr", "base": {"defence": "cm"}}}}, "cr (block law)"),
        ({"verb": "cr", "base": {"n": True}}, "n True of cr is not a whole number"),
        (
            {"verb": "attack", "grid": {"draws": [True, 2]}},
            "draws True of attack is not a whole number",
        ),
        ({"verb": "cr", "base": {"sigma": True}}, "sigma True"),
        ({"verb": "cr", "grid": {"clip": [True, 1]}}, "clip 1 of cr is neither true nor false"),
        ({"verb": "measure"}, "metric of measure is missing; give it"),
        (
            {"verb": "cr", "base": {"seeds": "0,1"}},
            "seeds '0,1' of cr is a text, and no list; write",
        ),
        ({"verb": "cr", "base": {"eps": [None]}}, "eps[0] None of cr is of another kind; give a"),
    ],
)
def test_options_are_checked_by_name_and_value(found: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        drafts(sweep(**found))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"verb": "cr", "grid": {"defense": ["ddpm", "ddmp"]}}, "block cr at defense=ddmp"),
        ({"verb": "attack", "base": {"attack_options.stepz": 3}}, "did you mean steps?"),
        (
            {"verb": "cr", "grid": {"options.clip_x0": [True, 3]}, "base": {"defense": "ddpm"}},
            "clip_x0 3",
        ),
        ({"verb": "cr", "base": {"subset": "frist-3"}}, "frist-3"),
        ({"verb": "cr", "base": {"n": 10**6}}, "does not fit"),
    ],
)
def test_every_point_is_checked_as_its_verb_checks_it(found: dict[str, Any], words: str) -> None:
    found["base"] = {**TINY, **found.get("base", {})}
    with pytest.raises(BadInput) as caught:
        plan(sweep(**found))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_points_are_named_as_the_verb_names_its_run_folder() -> None:
    from advpure.analysis.compression.study import Compression
    from advpure.runs.header import default_run_folder

    (point,) = plan(sweep(verb="cr", base={**TINY, "defense": "none"}))
    own = Compression.load(Compression(**TINY, defense="none")).settings
    assert point.run == default_run_folder("runs", "cr", own).name
    again = Point.from_json(point.to_json())
    assert again.run == point.run
    assert Compression.load(again.settings).settings == own


def test_points_that_come_to_one_run_are_one() -> None:
    base = {**TINY, "defense": "none", "attack_options.steps": 2}
    swept = sweep(verb="attack", base=base, grid={"attack": ["auto", "pgd"]})
    assert len(plan(swept)) == 1


def test_a_file_names_its_sweep_or_is_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my-law.yaml"
    path.write_text("verb: cr\n")
    assert load_sweep(path).name == "my-law"
    path.write_text("verb: cr\nname: other\n")
    assert load_sweep(path).name == "other"


def test_a_root_that_is_a_file_is_refused_before_anything_looks_at_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sweep = parse_sweep({"verb": "cr"}, name="x", where="x.yaml")
    with pytest.raises(BadInput, match="file is no folder; choose another --out"):
        Index.of(sweep, [], tmp_path / "file")
