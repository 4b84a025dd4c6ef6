"""What every study promises, for each that is registered."""

import ast
import dataclasses
import html
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from quick_studies import QUICK, finished, quick

from advpure.analysis.study import Report, Study
from advpure.analysis.subject import DefenseSubject
from advpure.base.errors import BadInput
from advpure.base.flags import Flag, documented, is_beside
from advpure.base.validation import range_of
from advpure.cli import run
from advpure.cli.studies import help_of, options_of
from advpure.options import read_options
from advpure.report.merge import Merging
from advpure.runs.records import ALREADY_COMPLETE, RecordStore
from advpure.statistics.estimates import Estimate
from advpure.studies import STUDIES

ROOT = Path(__file__).parents[1]
VERBS = STUDIES.names()
every_study = pytest.mark.parametrize("verb", VERBS)


class Stopped(KeyboardInterrupt):
    """A session that ends in the middle."""


def rows(folder: Path) -> dict[str, Any]:
    """Return everything that the records of a run hold, without what a clock says."""
    with RecordStore.read(folder) as store:
        tables: dict[str, Any] = {
            schema.table: [
                {name: value for name, value in row.items() if name != "seconds"}
                for row in store.rows(schema.table)
            ]
            for schema in store.schemas
        }
        return tables | {name: store.get_blob(name).tolist() for name in store.blobs()}


def values(report: Report) -> dict[str, Any]:
    """Return the JSON of a report without what differs between sessions."""
    told = report.to_json()
    return {name: told[name] for name in told if name not in ("run", "seconds", "notes")}


def estimates(tree: Any) -> Iterator[Estimate]:
    """Yield every estimate of a report's tree."""
    if isinstance(tree, Estimate):
        yield tree
    elif isinstance(tree, dict):
        for leaf in tree.values():
            yield from estimates(leaf)
    elif isinstance(tree, list | tuple):
        for leaf in tree:
            yield from estimates(leaf)


def test_every_study_has_quick_settings() -> None:
    assert set(QUICK) == set(VERBS)


@pytest.mark.slow
@every_study
def test_a_run_that_was_stopped_goes_on_and_gives_the_same(verb: str, tmp_path: Path) -> None:
    whole = finished(verb, tmp_path / "whole")
    counts: list[int] = []

    def stop(done: int) -> None:
        counts.append(done)
        if done > counts[0]:
            raise Stopped

    with pytest.raises(Stopped):
        quick(verb).run(out=tmp_path / "parts", progress=stop, batch_size=1)
    again = quick(verb).run(out=tmp_path / "parts", batch_size=2)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert values(again) == values(whole)
    complete = quick(verb).run(out=tmp_path / "parts")
    assert ALREADY_COMPLETE in complete.notes
    assert ALREADY_COMPLETE not in again.notes
    assert values(complete) == values(whole)


EDM = "onestep-edm sigma=0.25"
TOLD: dict[str, tuple[str, ...]] = {
    "attack": ("cm sigma=0.25", "2 steps of 0.005", "loss ce", "fresh randomness (seed 0, 2 dec"),
    "survival": (EDM, "2 steps of 0.01", "loss ce", "fixed randomness (seed 0)"),
    "predict": ("onestep-ddpm t=60", "2 steps of 0.005", "loss ce", "seed 0"),
    "randomness": (EDM, "2 steps of 0.005", "loss ce", "base seeds 0, 1"),
    "timesteps": ("2 steps of 0.005", "loss ce", "seed 0"),
    "cr": (EDM, "seeds 0, 1"),
    "distances": (EDM, "seed 0"),
    "certify": ("cm", "seed 0"),
    "snr": (EDM, "seeds from 0"),
    "transport": ("cm", "seed 0"),
    "steps": ("t=2", "seed 0"),
    "gradients": (EDM, "loss ce", "seeds from 0"),
}
"""What headline and figure of a run say of strength, attack and randomness."""
IN_TABLE = {"predict"}
"""Studies of several purifiers, whose strengths stand in the table."""


@pytest.mark.slow
@pytest.mark.parametrize("verb", TOLD)
def test_headline_and_figure_name_strength_attack_and_randomness(verb: str, tmp_path: Path) -> None:
    report = finished(verb, tmp_path / "run")
    with RecordStore.read(tmp_path / "run") as store:
        STUDIES.get(verb).draw(store, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    # What matplotlib draws is also a comment, a line of the text each.
    lines = " ".join(re.findall(r"<!-- (.*?) -->", drawn, re.DOTALL))
    told = report.table() if verb in IN_TABLE else report.display().headline
    for words in TOLD[verb]:
        assert words in told
        assert words in " ".join(html.unescape(lines).split())


UNSHARED = {"predict", "field", "two-point", "check-grad", "audit"}
"""Studies whose work is not that of single images."""


@pytest.mark.slow
@every_study
def test_merged_shards_are_the_whole_run(verb: str, tmp_path: Path) -> None:
    folders = tuple(tmp_path / f"part{i}" for i in (1, 2))
    if verb in UNSHARED:
        with pytest.raises(BadInput, match=f"shard 1/2 means nothing to {verb}"):
            quick(verb).run(out=folders[0], shard=(1, 2))
        return
    whole = finished(verb, tmp_path / "whole")
    for i, folder in enumerate(folders, 1):
        if verb == "certify":  # splits samples, not images
            quick(verb, shard=f"{i}/2").run(out=folder)
        else:
            part = quick(verb).run(out=folder, shard=(i, 2))
            assert f"shard {i} of 2" in part.notes[-1]
    merged = Merging(runs=folders, to=str(tmp_path / "merged")).merge()
    assert rows(tmp_path / "merged") == rows(tmp_path / "whole")
    assert values(merged) == values(whole)
    with RecordStore.read(tmp_path / "merged") as store:
        assert store.finished
    again = quick(verb).run(out=tmp_path / "merged")
    assert ALREADY_COMPLETE in again.notes


@pytest.mark.slow
@every_study
def test_a_report_needs_the_records_alone(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = STUDIES.get(verb)
    report = finished(verb, tmp_path / "run")
    for name in ("load_purifier", "load_defense"):
        monkeypatch.setattr(f"advpure.loading.{name}", None)
        monkeypatch.setattr(f"advpure.analysis.subject.{name}", None)
    with RecordStore.read(tmp_path / "run") as store:
        assert values(kind.report(store)) == values(report)
        assert kind.draw(store, tmp_path / "figure.png").stat().st_size > 1000
        assert store.settings["verb"] == verb
    for estimate in estimates(report.tree()):
        images = estimate.images()
        if images:
            assert estimate.n == len(images)
            assert estimate.value == pytest.approx(np.mean(list(images.values())), abs=1e-12)
        if estimate.interval is not None:
            low, high = estimate.interval
            assert low <= estimate.value + 1e-12
            assert estimate.value <= high + 1e-12


@pytest.mark.slow
@every_study
def test_the_command_line_says_what_the_study_says(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    report = finished(verb, out)
    options = {option.name: option for option in options_of(STUDIES.get(verb))}
    words = [verb, "--out", str(out)]
    for name, value in QUICK[verb].items():
        words += _words(options, name, value)
    assert run([*words, "--json", "--plot", str(tmp_path / "figure.svg")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [*told][-5:] == ["notes", "seconds", "settings", "run", "plot"]
    assert {name: told[name] for name in values(report)} == json.loads(json.dumps(values(report)))
    assert run(words) == 0
    assert f"records: {out}" in capsys.readouterr().out
    assert run([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dry_run"]


def _words(options: dict[str, Any], name: str, value: Any) -> list[str]:
    option = options[name]
    flag = option.flags[0] if option.flags else "--" + name.replace("_", "-")
    if option.positional:
        return [str(value)]
    if option.kind == list[str] | None and not isinstance(value, dict):
        return [word for each in value for word in (flag, each)]
    if isinstance(value, dict):
        return [word for key, each in value.items() for word in (flag, f"{key}={each}")]
    if option.kind is bool:
        on, _, off = flag.partition("/")
        return [on] if value is True or value == "fixed" else [off] if off else []
    return [flag, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]


@every_study
def test_a_picture_of_another_ending_is_refused_before_anything_is_loaded(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(STUDIES.get(verb), "load", None)
    positional = [
        str(QUICK[verb][option.name])
        for option in options_of(STUDIES.get(verb))
        if option.positional and option.name in QUICK[verb]
    ]
    assert run([verb, *positional, "--plot", "figure.gif"]) == 2
    assert "figure.gif is no picture" in capsys.readouterr().err


OTHER: dict[str, Any] = {  # where the next number or the other word does not fit
    "eps": "0.07",
    "seeds": [2, 3],
}


@every_study
def test_whatever_a_record_depends_on_is_in_the_name_of_the_run(verb: str) -> None:
    """Every field of the study's own, moved a little, gives a run of another name."""
    shared = {each.name for each in dataclasses.fields(DefenseSubject)} - {"scheme"}
    hints = get_type_hints(STUDIES.get(verb), include_extras=True)
    base = quick(verb).load().settings
    for name in _fields(verb):
        value, hint = getattr(quick(verb), name), hints[name]
        if name == "scheme":
            other = "hash" if value == "counter" else "counter"
        elif name in OTHER:
            other = OTHER[name]
        elif name in shared or value is None or isinstance(value, dict | list | tuple | str):
            continue
        else:
            other = (not value) if isinstance(value, bool) else value + 1
        try:
            moved = quick(verb, **{name: other})
        except BadInput:
            continue
        assert moved.load().settings != base, (name, hint)


@pytest.mark.slow
@every_study
def test_a_folder_of_other_settings_is_refused(verb: str, tmp_path: Path) -> None:
    finished(verb, tmp_path / "run")
    other = {"seed": 1} if "seed" in _fields(verb) else {"seeds": [5, 6]}
    with pytest.raises(BadInput, match="differs from"):
        quick(verb, **other).run(out=tmp_path / "run")


@every_study
def test_every_field_has_a_help_and_its_rule(verb: str) -> None:
    kind = STUDIES.get(verb)
    helps, hints = documented(kind), get_type_hints(kind, include_extras=True)
    shown = {option.field: option.help for option in options_of(kind) if option.key is None}
    for name in _fields(verb):
        assert helps.get(name), name
        within = range_of(getattr(hints[name], "__metadata__", ()))
        if within.least is not None and math.isfinite(within.least):
            assert f"{within.least:,}" in shown[name], name
    assert "Example: advpure " + verb in help_of(kind)


@every_study
def test_a_sweep_reads_what_python_takes(verb: str) -> None:
    kind = STUDIES.get(verb)
    study = quick(verb)
    told = {name: getattr(study, name) for name in _fields(verb)}
    assert read_options(kind, told, verb) == study
    with pytest.raises(BadInput, match="is not known"):
        read_options(kind, {"no_such_option": 1}, verb)


@every_study
def test_flags_are_names_of_their_fields_or_say_so(verb: str) -> None:
    hints = get_type_hints(STUDIES.get(verb), include_extras=True)
    for option in options_of(STUDIES.get(verb)):
        said = getattr(hints[option.field], "__metadata__", ())
        if option.flags and option.key is None and option.kind is not bool:
            assert any(isinstance(mark, Flag) for mark in said)


def test_no_parameter_of_a_study_is_declared_twice() -> None:
    """A default that stands in a function's signature too would be a second declaration."""
    owners: dict[str, set[str]] = {}
    for verb in VERBS:
        kind = STUDIES.get(verb)
        package = kind.__module__.rpartition(".")[0]
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING and field.default not in (None, False):
                owners.setdefault(package, set()).add(field.name)
    second = []
    for package, names in owners.items():
        folder = ROOT / package.removeprefix("advpure.").replace(".", "/")
        for path in folder.glob("*.py"):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                    twice = names.intersection(_defaults(function))
                    second += [f"{path.name}: {function.name}({name})" for name in twice]
    assert not second


def _defaults(function: ast.FunctionDef) -> list[str]:
    """Return the parameters of a function whose default is written there, but None and False."""
    given = function.args
    positional = given.posonlyargs + given.args
    pairs = [
        *zip(positional[len(positional) - len(given.defaults) :], given.defaults, strict=True),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    return [
        each.arg
        for each, default in pairs
        if isinstance(default, ast.Constant) and default.value not in (None, False)
    ]


def _fields(verb: str) -> list[str]:
    """Return the fields of a study on which its records depend."""
    kind: type[Study[Any, Any]] = STUDIES.get(verb)
    hints = get_type_hints(kind, include_extras=True)
    return [each.name for each in dataclasses.fields(kind) if not is_beside(hints[each.name])]  # type: ignore[arg-type]
