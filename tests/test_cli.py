"""The command line as users meet it: exact lines, one JSON object, rows to take away."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.cli.options import given, parse_integers, parse_options
from advpure.runs.records import RecordStore

Cli = Callable[..., tuple[int, str, str]]
SMALL = ("--fix-random", "-n", "4", "--steps", "2")
MINE = ["advpure.core.denoisers", "advpure.purifiers.cm"]
RATES = ("one_shot", "mean", "worst", "majority")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a runner in an empty folder: arguments to (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        return code, *capsys.readouterr()

    return call


def shell(*arguments: str, folder: Path, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run the installed command in a process of its own."""
    command = [sys.executable, "-c", "from advpure.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **more)


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which every connection is an error, and the home is empty."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*a, **k): raise SystemError('a connection was tried')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "socket.create_connection = socket.getaddrinfo = refuse\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    path = os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    inherited = {name: text for name, text in os.environ.items() if name != "ADVPURE_DATASET"}
    return {**inherited, **nowhere, "HOME": str(home), "PYTHONPATH": path}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "told", "keys"),
    [
        (
            "attack --defense cm --fix-random",
            "cifar10, linf 0.03137, defense cm sigma=0.25, attack standard",
            "clean_accuracy robust_accuracy noise_accuracy n interval settings run",
        ),
        (
            "cr --eps 8/255",
            "cifar10, uniform noise 0.03137, defense cm sigma=0.25, fixed randomness (seeds 0): ",
            "mean std n eps settings",
        ),
    ],
)
def test_the_exact_lines_work_offline(
    tmp_path: Path, offline: dict[str, str], line: str, told: str, keys: str
) -> None:
    done = shell(*line.split(), folder=tmp_path, env=offline)
    assert done.returncode == 0
    stood_in = (
        "first 20 test images, which foolbox carries, stand in for it; `advpure data cifar10`"
    )
    assert stood_in in done.stderr
    notes = done.stderr.splitlines()  # a slow machine is told how to shorten a run
    assert len(notes) == 1 + any("shorter with" in note for note in notes)
    assert done.stdout.startswith(told)
    again = shell(*line.split(), "--json", folder=tmp_path, env=offline)
    found = json.loads(again.stdout)
    assert set(keys.split()) <= set(found)
    assert found["n"] == 20


@pytest.mark.slow
def test_the_default_data_set_is_one_variable_away(tmp_path: Path) -> None:
    line = ("attack", "-d", "none", "--fix-random", "-n", "1", "--steps", "1")
    for name, told in (("digits", "digits, linf 0.15"), ("cifar10-sample", "cifar10-sample, linf")):
        done = shell(*line, folder=tmp_path, env={**os.environ, "ADVPURE_DATASET": name})
        assert done.stdout.startswith(told), done.stderr
    done = shell(*line, folder=tmp_path, env={**os.environ, "ADVPURE_DATASET": "digit"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "data set 'digit' is not known; did you mean digits?" in done.stderr


def test_attack_prints_one_json_object(cli: Cli) -> None:
    code, out, err = cli("attack", "--defense", "cm", *SMALL, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    low, high = found["interval"]
    assert low <= found["robust_accuracy"] <= high
    assert found["robust_accuracy"] <= found["clean_accuracy"] == 1.0
    assert 0 <= found["noise_accuracy"] <= 1
    assert (found["n"], found["settings"]["threat_model"]) == (4, {"norm": "linf", "eps": 0.15})
    assert set(found["stages"]["clean"]) == set(RATES)
    assert Path(found["run"], "records.sqlite").is_file()


def test_cr_prints_one_json_object(cli: Cli) -> None:
    code, out, err = cli("cr", "--eps", "2/255,8/255", "-n", "3", "--perturbations", "2", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert (found["n"], found["eps"]) == (3, 2 / 255)
    assert [row["eps"] for row in found["rows"]] == [2 / 255, 8 / 255]
    assert 0 < found["mean"] < 1
    assert found["std"] > 0
    assert found["settings"]["purifier"] == "cm"


def test_attack_tells_data_set_and_threat_model(cli: Cli) -> None:
    code, out, _ = cli("attack", *SMALL, "--eps", "0.5", "--norm", "l2", "--seed", "7")
    assert code == 0
    assert out.startswith("digits, l2 0.5, defense cm sigma=0.25, attack pgd (")
    assert "loss ce), fixed randomness (seed 7): robust accuracy" in out
    assert out.splitlines()[-1].startswith("records: runs/attack-")


def test_fresh_randomness_shows_all_four_ways_to_decide(cli: Cli) -> None:
    code, out, _ = cli("attack", "-n", "3", "--steps", "1", "--draws", "3")
    assert code == 0
    assert "fresh randomness (seed 0, 3 decisions an image)" in out
    for head in ("one-shot %", "mean over draws %", "worst of 3 %", "majority vote %"):
        assert head in out


def test_a_defense_without_randomness_decides_once(cli: Cli) -> None:
    _, out, _ = cli("attack", "-d", "none", "-n", "3", "--steps", "1")
    assert "loss ce), no randomness: robust accuracy" in out
    assert "majority" not in out


def test_export_gives_every_decision(cli: Cli, tmp_path: Path) -> None:
    cli("attack", *SMALL, "--out", "mine")
    code, out, _ = cli("export", "mine", "--to", "records.csv")
    assert code == 0
    assert out == "12 rows of decisions in records.csv; other tables: attacks\n"
    with (tmp_path / "records.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {(row["sample"], row["stage"]) for row in rows} == {
        (str(i), stage) for i in range(4) for stage in ("clean", "noise", "adversarial")
    }
    with RecordStore.read("mine") as store:
        assert [float(row["margin"]) for row in rows] == [
            row["margin"] for row in store.rows("decisions")
        ]
    assert cli("export", "mine", "--to", "attacks.jsonl", "--table", "attacks")[0] == 0
    assert len((tmp_path / "attacks.jsonl").read_text().splitlines()) == 8


def test_dry_run_computes_nothing(cli: Cli, tmp_path: Path) -> None:
    for verb in ("attack", "cr"):
        code, out, err = cli(verb, "--dry-run")
        assert (code, err) == (0, "")
        assert ("evaluations including the classifier and " in out) == (verb == "attack")
        assert ("backward passes through the whole defense" in out) == (verb == "attack")
        assert "peak memory about" in out
        code, out, _ = cli(verb, "--dry-run", "--json")
        found = json.loads(out)
        assert found["dry_run"] is True
        assert found["seconds"] > 0
        assert found["peak_memory"] > 2**20
        assert found["images"] == 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_pictures_show_clean_adversarial_and_purified(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advpure.analysis.robustness import figure

    seen: list[dict[str, Any]] = []
    draw = figure.image_grid

    def watch(rows: dict[str, Any], path: Path, **more: Any) -> Path:
        seen.append(dict(rows))
        return draw(rows, path, **more)

    monkeypatch.setattr(figure, "image_grid", watch)
    assert cli("attack", *SMALL, "--out", "mine")[0] == 0  # without pictures first
    code, out, _ = cli("attack", *SMALL, "--out", "mine", "--save-images", "--batch-size", "3")
    assert code == 0
    assert out.endswith("records: mine, picture: mine/images.png\n")
    assert Path("mine/images.png").read_bytes().startswith(b"\x89PNG")
    (rows,) = seen
    assert list(rows) == ["clean", "adversarial", "purified"]
    change = (rows["adversarial"] - rows["clean"]).abs().flatten(1).amax(1)
    with RecordStore.read("mine") as store:
        stored = [row["linf"] for row in store.rows("attacks", {"stage": "adversarial"})]
        assert change.double().tolist() == pytest.approx(stored, abs=1e-7)
        kinds = ("adversarial", "clean", "noise", "purified")
        assert store.blobs() == [f"{kind}/{i}" for kind in kinds for i in "0123"]
    assert 0 < change.max() <= 0.15 + 1e-6
    assert not rows["purified"].equal(rows["adversarial"])


def test_plot_draws_a_histogram(cli: Cli) -> None:
    code, out, _ = cli("cr", "-n", "3", "--perturbations", "2", "--plot", "deep/cr.svg")
    assert code == 0
    assert "picture: deep/cr.svg" in out
    assert "<svg" in Path("deep/cr.svg").read_text()


def test_limit_is_near_the_smallest_strength(cli: Cli) -> None:
    _, out, _ = cli("cr", "-n", "3", "--eps", "0.002", "--limit", "--json")
    found = json.loads(out)
    assert found["limit"]["value"] == pytest.approx(found["mean"], rel=0.05)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from advpure.cli import run; run(['--help']); run(['train', '--help']);"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'safetensors'};"
        "sys.exit(len(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_missing_verb_shows_what_there_is(cli: Cli) -> None:
    code, out, err = cli()
    assert (code, err) == (2, "advpure: a verb is missing; see advpure --help\n")
    assert "check-grad" in out


@pytest.mark.parametrize("verb", ["attack", "cr", "train", "models", "export"])
def test_help_of_a_verb_has_an_example(cli: Cli, verb: str) -> None:
    code, out, _ = cli(verb, "--help")
    assert code == 0
    assert f"Example: advpure {verb}" in " ".join(out.split())


def test_lists_name_what_there_is(cli: Cli) -> None:
    listed = json.loads(cli("models", "--json")[1])
    assert {"cm", "ddpm", "none"} <= set(listed["purifiers"])
    assert {"pgd", "bpda"} <= set(listed["attacks"])
    assert {"digits-cm", "digits-edm", "digits-classifier"} <= set(listed["networks"])
    assert json.loads(cli("data", "--json")[1])["digits"]["shape"] == [1, 8, 8]
    for arguments, word in ((["models"], "digits-cm"), (["data"], "digits"), (["train"], "digits")):
        code, out, _ = cli(*arguments)
        assert code == 0
        assert word in out
    assert "digits-cm" in cli("models", "digits-cm")[1]
    assert cli("--version")[1].startswith("advpure ")


@pytest.mark.slow
def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from advpure.cli import main; main()", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_warnings_are_notes_without_a_place_in_the_code(cli: Cli) -> None:
    cli("attack", *SMALL, "--out", "mine")
    with RecordStore.read("mine") as store:
        settings, context = store.settings, store.context
    context["torch"] = "0.0"
    with RecordStore.open("other", schemas=(), settings=settings, context=context):
        pass
    code, _, err = cli("attack", *SMALL, "--out", "other")
    assert code == 0
    assert err.startswith("note: ")
    assert "torch" in err
    assert ".py:" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "modules"),
    [
        (
            ["attack", *SMALL, "--eps", "0.6", "--step-size", "0.8"],
            ["advpure.attacks.projected", *MINE],
        ),
        (["cr", "-n", "2", "--perturbations", "1"], MINE),
        (["measure", "distance", "-n", "2"], ["advpure.analysis.metrics.distance", *MINE]),
    ],
)
def test_a_reported_run_says_so_and_whether_its_code_changed(
    cli: Cli, line: list[str], modules: list[str]
) -> None:
    complete = "note: already complete, reported from records; nothing was computed\n"
    assert cli(*line, "--out", "mine")[2] == ""
    assert cli(*line, "--out", "mine")[2] == complete
    with RecordStore.read("mine") as store:
        settings, context = store.settings, store.context
    assert sorted(context["sources"]) == modules
    context["sources"] = dict.fromkeys(modules, "0" * 64)
    with RecordStore.open("edited", schemas=(), settings=settings, context=context):
        pass
    code, out, err = cli(*line, "--out", "edited")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(f"note: the code of {', '.join(modules)} changed since the run in edited")
    assert "choose another --out to compute them anew" in err
    assert out == cli(*line, "--out", "mine")[1].replace("mine", "edited")


def test_cr_of_a_purifier_without_noise_says_so(cli: Cli) -> None:
    _, out, _ = cli("cr", "-d", "none", "-n", "2", "--perturbations", "1")
    assert "defense none, no randomness: compression rate 1.0000" in out


def test_options_are_read_once() -> None:
    assert parse_options(["clip-x0 = true", "a=b=c"]) == {"clip_x0": "true", "a": "b=c"}
    assert parse_options(None) == {}
    assert parse_integers("0, 12", "seed") == [0, 12]
    assert given(a=0, b=None) == {"a": 0}
    with pytest.raises(BadInput, match="is not KEY=VALUE"):
        parse_options(["=3"])
    with pytest.raises(BadInput, match="is given twice"):
        parse_options(["t=1", "t=2"])
