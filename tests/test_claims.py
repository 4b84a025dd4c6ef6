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


def test_every_flaw_that_has_a_mechanism_has_a_toy_that_is_there() -> None:
    root = Path(__file__).parents[1]
    for code, flaw in published_claims().flaws.items():
        if code == "OPEN":
            continue
        assert flaw.toy
        assert flaw.shipped
        for word in flaw.toy.split():
            place = word.partition(":")[0]
            if place.endswith(".py"):
                assert (root / place).is_file()


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
