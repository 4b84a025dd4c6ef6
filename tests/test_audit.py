"""The audit: verdicts from records, a stated number of passes, refusals as failures, exit codes."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from museum.cases import PGD, named

from advpure.analysis.audit.check import ONE, Measured, Value, compared
from advpure.analysis.audit.free import free_findings, in_one_line
from advpure.analysis.audit.registry import CHECKS
from advpure.analysis.audit.study import Audit
from advpure.analysis.robustness.study import Robustness
from advpure.attacks.standard import StandardSettings
from advpure.base.errors import FAULTS, BadInput, ModelFault
from advpure.cli import run
from advpure.runs.records import RecordStore

FIXED = {"decisions": {"randomness": "fixed", "draws": 1}, "is_random": True}
FRESH = {"decisions": {"randomness": "fresh", "draws": 10}, "is_random": True}
EVALUATION: dict[str, Any] = {
    "dataset": named("points"),
    "classifier": named("linear"),
    "defense": named("same"),
    "eps": 0.1,
    "n": 24,
    "attack": "pgd",
    "randomness": "fixed",
    "attack_options": PGD,
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an attack on the museum's linear classifier."""
    folder = tmp_path_factory.mktemp("attack") / "run"
    Robustness(**EVALUATION).run(out=folder)
    return folder


ATTACK = {"name": "pgd", "steps": 10, "restarts": 1, "seed": 0, "randomness": "fresh", "eot": 1}


def test_every_check_says_what_why_from_where_and_what_to_do() -> None:
    names = CHECKS.names()
    assert len(names) > 45
    for name in names:
        check = CHECKS.get(name)
        assert check.name == name
        assert check.about
        assert check.threshold
        assert check.source.startswith("[")
        module = check.measure.__module__ if name not in ("train-mode",) else ""
        assert module is not None
        if not check.is_free:
            assert check.cost({**FRESH, "attack": ATTACK}) >= 0


def test_one_image_is_no_verdict_and_four_of_twenty_four_are() -> None:
    before = dict.fromkeys(range(24), 1.0)
    for count, status in ((0, "pass"), (1, "inconclusive"), (3, "inconclusive"), (4, "fail")):
        after = before | dict.fromkeys(range(count), 0.0)
        found = compared(after, before, "it", FIXED)
        assert found.status == status
        assert found.number == pytest.approx(count / 24)


def test_a_tie_under_fresh_randomness_passes_and_a_clear_gap_fails() -> None:
    before = {i: 0.6 + 0.02 * (i % 3) for i in range(24)}
    close = {i: right - 0.01 for i, right in before.items()}
    far = {i: right - 0.2 - 0.01 * (i % 2) for i, right in before.items()}
    assert compared(close, before, "it", FRESH).status == "pass"
    assert compared(far, before, "it", FRESH).status == "fail"


def test_free_checks_need_no_model_and_give_a_line(
    attacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advpure.analysis.subject.load_defense", None)
    with RecordStore.read(attacked) as store:
        findings = free_findings(store)
        report = Robustness.report(store)
    assert all(each.check.is_free for each in findings)
    assert not [each for each in findings if each.finding.status == "fail"]
    line = in_one_line(findings)
    assert line in report.display().parts
    assert "open: " in line


def test_a_run_is_audited_within_the_passes_that_are_stated(attacked: Path, tmp_path: Path) -> None:
    study = Audit(run_folder=str(attacked), passes=110, trust=True)
    loaded = study.load()
    bound = study.cost(loaded).images * 110
    report = study.run(out=tmp_path / "audit", loaded=loaded)
    assert report.exit_code == 0
    assert 0 < report.passes <= bound
    found = {check.name: each for check, each in report.findings.items()}
    assert found["finite-differences"].status == "pass"
    assert found["finite-differences"].number == pytest.approx(0, abs=1e-2)
    assert "--passes" in found["black-box"].words
    again = Audit(run_folder=str(attacked), passes=110, trust=True).run(out=tmp_path / "audit")
    assert again.passes == report.passes


def test_the_default_tier_takes_at_most_half_of_the_first_run_of_the_readme() -> None:
    first = StandardSettings(eps=8 / 255).most_passes.forwards + 3 + 1
    own = 20 * first
    study = Audit(dataset="digits", defense="none", randomness="fixed")
    loaded = study.load()
    cost = study.cost(loaded)
    assert loaded.loaded is not None
    assert cost.evaluations / loaded.loaded.defense.evaluations <= own / 2


def test_records_alone_are_read_where_code_is_not_trusted(attacked: Path, tmp_path: Path) -> None:
    """The museum's code is named by the records, and is not run."""
    report = Audit(run_folder=str(attacked)).run(out=tmp_path / "audit")
    found = {check.name: each for check, each in report.findings.items()}
    assert found["zero-gradient"].status == "pass"
    assert found["black-box"].status == "inconclusive"
    assert "--trust" in found["black-box"].words
    assert report.passes == 0


OWN = """
import torch
from torch import nn

class Soft(nn.Module):
    def forward(self, x):
        s = 30 * (x - 0.5).mean((1, 2, 3))
        return torch.softmax(torch.stack([-s, s], 1), 1)

def soft():
    return Soft().eval()

def points():
    t = torch.linspace(-0.2, 0.2, 24).reshape(-1, 1, 1, 1)
    return 0.5 + t * torch.ones(24, 1, 4, 4), (torch.arange(24) > 11).long()

def same(x):
    return x * 1.0
"""


def test_what_other_verbs_refuse_fails_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(textwrap.dedent(OWN))
    line = "--defense mine.py:same --classifier mine.py:soft --dataset mine.py:points --eps 0.1"
    assert run(["attack", *line.split(), "--fix-random"]) == 2
    capsys.readouterr()
    assert run(["audit", *line.split(), "--fix-random", "--json", "--out", "audit"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["checks"]["logits"]["verdict"] == "fail"
    assert told["checks"]["black-box"]["verdict"] == "inconclusive"
    assert told["fail"] == 1


def test_settings_of_a_run_and_unknown_checks_are_refused(attacked: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is said by the records"):
        Audit(run_folder=str(attacked), eps=0.1)
    with pytest.raises(BadInput, match=r"did you mean black-box"):
        Audit(run_folder=str(attacked), only=("black-bix",))
    with pytest.raises(BadInput, match="is no run folder"):
        Audit(run_folder=str(tmp_path)).load()


def test_a_fault_has_a_name_and_crosses_processes() -> None:
    import pickle

    fault = ModelFault("a model", "learns", "mend it", "buffers")
    again = pickle.loads(pickle.dumps(fault))
    assert (again.fault, str(again)) == ("buffers", str(fault))
    known = {name for check in CHECKS.names()[:5] for name in _faults(check)}
    assert known == set(FAULTS)


def _faults(name: str) -> list[str]:
    from advpure.analysis.audit.evaluation import Evaluation
    from advpure.analysis.audit.recorded import Recorded

    nothing = Evaluation(recorded=Recorded(verb="attack", settings={}))
    values = list(CHECKS.get(name).measure(nothing))
    assert all(each.sample == ONE for each in values)
    return [each.name for each in values]


def test_measured_numbers_are_sorted_by_name_and_image() -> None:
    numbers = Measured([Value("a", 5, 1.0), Value("a", 2, 3.0), Value("b", ONE, 7.0)])
    assert numbers.values("a") == [3.0, 1.0]
    assert numbers.total("a") == 4.0
    assert numbers.one("b") == 7.0
    assert not numbers.has("c")
