"""Published claims as data: complete, consistent, and shown with the commands behind each flaw."""

import json
from pathlib import Path

import pytest

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.sweeps.claims import Claims, published_claims


def test_every_claim_names_known_flaws_and_its_source() -> None:
    known = published_claims()
    assert len(known.claims) > 40
    for claim in known.claims:
        assert claim.flaws
        assert set(claim.flaws) <= set(known.flaws)
        assert claim.source
        assert claim.later or claim.note, claim.defense
    used = {code for claim in known.claims for code in claim.flaws}
    assert used | {"SEL"} == set(known.flaws)


ROOT = Path(__file__).parents[1]


def test_every_flaw_that_has_a_mechanism_has_a_toy_that_is_there() -> None:
    for code, flaw in published_claims().flaws.items():
        if code == "OPEN":
            continue
        assert flaw.toy
        assert flaw.shipped
        for word in " ".join((flaw.toy, *flaw.shipped)).split():
            place = word.partition(":")[0]
            if place.endswith(".py"):
                assert (ROOT / place).is_file()


COMMANDS = sorted(
    {line for flaw in published_claims().flaws.values() for line in (flaw.toy, *flaw.shipped)}
)
TOYS = {code: flaw.toy for code, flaw in published_claims().flaws.items() if flaw.toy}


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [each for each in COMMANDS if each.split()[:2] not in ([], ["advpure", "compare"])]
)
def test_every_command_that_is_printed_is_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    program, *words = line.split()
    if program == "pytest":
        assert all((ROOT / each).is_file() for each in words)
        return
    words = [each.replace("runs/", f"{tmp_path}/") for each in words]
    assert run([*words, "--dry-run"]) == 0
    assert "for " in capsys.readouterr().out


def test_what_is_compared_was_written_by_the_commands_before() -> None:
    for flaw in published_claims().flaws.values():
        written = [line.split()[-1] for line in flaw.shipped if " --out " in line]
        for line in flaw.shipped:
            if line.startswith("advpure compare "):
                assert line.split()[2:] == written


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for code, toy in TOYS.items() if toy.startswith("advpure ")])
def test_the_toy_of_every_flaw_fails_the_check_that_it_names(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    words = TOYS[code].split()[1:]
    assert run([*words, "--json", "--out", str(tmp_path / "audit")]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["checks"][words[words.index("--only") + 1]]["verdict"] == "fail"


def test_the_verb_lists_draws_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["claims", "--flaw", "EOT", "--json", "--plot", str(tmp_path / "c.svg")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"DiffPure SDE, WRN-28-10", "Random Projection Filters"} <= {
        each["defense"] for each in told["claims"]
    }
    first = told["claims"][0]
    assert first["drop"] == pytest.approx(70.64 - 16.8)
    assert (tmp_path / "c.svg").stat().st_size > 1000
    assert run(["claims"]) == 0
    assert "17 lost more than 5 points" in capsys.readouterr().out
    with pytest.raises(BadInput, match="flaw"):
        Claims(flaw=("XYZ",))
