"""The verbs certify and certified-accuracy as users meet them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from advpure.analysis.certification import read_log
from advpure.cli import run
from advpure.statistics.estimates import plain
from advpure.sweeps.columns import headlines
from advpure.sweeps.drawing import draw
from advpure.sweeps.table import report_of

Cli = Callable[..., tuple[int, str, str]]
ONE = (
    "--defense", "none", "--dataset", "digits", "-n", "3", "--samples", "200",
    "--selection", "20", "--block", "100", "--radii", "0,0.1,0.25",
)  # fmt: skip
SMALL = (*ONE, "--sigma", "0.1,0.3")
LOG = Path(__file__).parent / "fixtures" / "certification_log_sigma_0.50.tsv"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a runner in an empty folder: arguments to (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        return code, *capsys.readouterr()

    return call


@pytest.mark.slow
def test_a_run_its_log_its_figure_and_its_table(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("certify", *SMALL, "--log", "log.tsv", "--plot", "curves.png")
    assert code == 0, err
    first = out.splitlines()[0]
    assert "digits, defense none, fixed certificates, alpha 0.001, 200 samples" in first
    assert "best (oracle)" in out
    assert "none digits-classifier 0.1" in out
    assert "sigma 0.1 reaches at most radius 0.1825" in err
    assert err.count("reaches at most") == 1
    assert (tmp_path / "curves.png").stat().st_size > 1000
    logs = [tmp_path / f"log_sigma_{sigma}.tsv" for sigma in ("0.1", "0.3")]
    assert [read_log(log).sigma for log in logs] == [0.1, 0.3]
    (folder,) = (tmp_path / "runs").glob("certify-*")

    code, out, err = cli("certify", *SMALL, "--json")
    found = json.loads(out)
    assert "already complete" in found["notes"][-1]
    assert found["run"].endswith(folder.name)
    read = json.loads(cli("certified-accuracy", str(folder), "--json")[1])
    assert read["certified_accuracy"] == found["certified_accuracy"]
    assert read["rows"] == found["rows"]
    from_logs = json.loads(
        cli("certified-accuracy", *map(str, logs), "--radii", "0,0.1,0.25", "--json")[1]
    )
    assert from_logs["certified_accuracy"] == found["certified_accuracy"]
    assert from_logs["oracle"]

    assert plain(report_of(folder, "certify"))["rows"] == found["rows"]
    for column in headlines("certify", "certify").values():
        value = column.read(found)
        assert value is not None
        assert value.n == 3
    (figure,) = draw(folder, tmp_path / "figure", [".svg"])
    assert figure.stat().st_size > 1000


def test_accuracy_of_a_log(cli: Cli) -> None:
    code, out, _ = cli("certified-accuracy", str(LOG), "--radii", "0,0.25,0.5", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["certified_accuracy"].keys() == {"0", "0.25", "0.5"}
    assert not found["oracle"]
    images = read_log(LOG)
    for text, value in found["certified_accuracy"].items():
        assert value == (images.correct & (images.radii >= float(text))).mean()
    shown = cli("certified-accuracy", str(LOG))[1]
    assert "average radius" in shown
    assert "oracle" not in shown


def test_two_methods_are_compared(cli: Cli, tmp_path: Path) -> None:
    text = LOG.read_text().splitlines()
    worse = [line.replace("\t0.", "\t0.0") if k % 2 else line for k, line in enumerate(text)]
    (tmp_path / "worse.tsv").write_text("\n".join(worse) + "\n")
    arguments = ("certified-accuracy", str(LOG), "worse.tsv", "--compare", "--radii", "0.25")
    _, out, _ = cli(*arguments)
    assert "certification_log_sigma_0.50 - worse" in out
    (difference,) = json.loads(cli(*arguments, "--json")[1])["differences"]
    assert difference["value"] > 0
    assert difference["interval"][0] > 0
    assert difference["n"] == 200


def test_a_log_is_read_as_fewer_samples(cli: Cli, tmp_path: Path) -> None:
    arguments = (
        "certified-accuracy", str(LOG), "--emulate", "1000", "--log-samples", "100000", "--log",
        "fewer.tsv",
    )  # fmt: skip
    code, out, err = cli(*arguments)
    assert code == 0
    assert "is emulated with 1,000 of 100,000 samples" in err
    assert "alpha 0.001 of the logs is assumed" in err
    assert "assumed" not in cli(*arguments, "--log-alpha", "0.001")[2]
    assert "written: fewer.tsv" in out
    assert (read_log(tmp_path / "fewer.tsv").radii <= read_log(LOG).radii + 0.01).all()


def test_a_run_is_read_otherwise(cli: Cli, tmp_path: Path) -> None:
    assert cli("certify", *SMALL, "--out", "run", "-q")[0] == 0
    strict = json.loads(cli("certified-accuracy", "run", "--alpha", "1e-6", "--json")[1])
    loose = json.loads(cli("certified-accuracy", "run", "--alpha", "0.1", "--json")[1])
    for one, other in zip(strict["curves"], loose["curves"], strict=True):
        assert one["largest_radius"] < other["largest_radius"]
    fewer = json.loads(cli("certified-accuracy", "run", "--samples", "100", "--json")[1])
    assert fewer["curves"][0]["largest_radius"] < loose["curves"][0]["largest_radius"]
    for name in ("anytime", "sequential", "predict", "cascade"):
        code, _, err = cli("certified-accuracy", "run", "--procedure", name)
        assert code == 0
        assert ("a prediction has no radius" in err) == (name == "predict")
        assert ("chosen before the counts were looked at" in err) == (name == "sequential")
    assert set(json.loads(cli("certified-accuracy", "run", "-p", "predict", "--json")[1])[
        "certified_accuracy"
    ]) == {"0"}  # fmt: skip
    assert cli("certified-accuracy", "run", "--emulate", "50")[0] == 2


@pytest.mark.slow
def test_images_that_counts_chose_are_not_read_otherwise(cli: Cli) -> None:
    many = (
        "--defense", "none", "--dataset", "digits", "-n", "6", "--selection", "10",
        "--radii", "0,0.25,0.5", "--sigma",
    )  # fmt: skip
    assert (
        cli("certify", *many, "0.25,0.5", "-N", "2048", "-p", "anytime", "--out", "any", "-q")[0]
        == 0
    )
    for name in ("fixed", "cascade", "predict"):
        code, _, err = cli("certified-accuracy", "any", "-p", name)
        assert code == 2
        assert "as their counts asked for" in err
        assert "--procedure anytime" in err
    some = (*many, "0.1,0.25")  # most images stop at the larger one
    assert cli("certify", *some, "-N", "300", "-p", "cascade", "--out", "down", "-q")[0] == 0
    assert cli("certified-accuracy", "down")[0] == 0
    code, _, err = cli("certified-accuracy", "down", "-p", "anytime")
    assert code == 2
    assert "--procedure cascade" in err
    # One of two shards is whole for its images: other radii ask for no other counts.
    part = (*some, "-N", "300", "-p", "cascade", "--shard", "1/2", "--out", "part", "-q")
    assert cli("certify", *part)[0] == 0
    code, _, err = cli("certified-accuracy", "part", "--radii", "0,0.1")
    assert (code, "3 of 6 images are done" in err) == (0, True)
    assert cli("certified-accuracy", "part", "--alpha", "1e-9")[0] == 2
    assert (
        cli("certify", *many[:6], "--sigma", "0.25,0.5", "-N", "100", "-p", "predict",
            "--out", "said", "-q")[0]
        == 0
    )  # fmt: skip
    code, _, err = cli("certified-accuracy", "said", "-p", "fixed")
    assert code == 2
    assert "--procedure predict" in err


def test_a_cascade_is_told_what_its_levels_reach(cli: Cli) -> None:
    # Level 0.25 is the last of two and spends alpha / 2 = 0.0005 on its class: with 301 samples
    # it reaches 0.25 Phi^-1(0.0005^(1 / 301)) = 0.4902.
    _, _, err = cli(
        "certify", "--dataset", "digits", "--defense", "none", "-n", "1", "-p", "cascade",
        "--sigma", "0.25,1.0", "-N", "301", "--radii", "0,0.5", "--dry-run",
    )  # fmt: skip
    assert "sigma 0.25 reaches at most radius 0.4902 with 301 samples at alpha 0.0005" in err


def test_joint_certificates_of_shards_say_what_some_level_certifies(cli: Cli) -> None:
    joint = (*ONE, "--sigma", "0.25,0.5", "--joint")
    whole = json.loads(cli("certify", *joint, "--out", "whole", "--json")[1])
    for k in (1, 2):
        assert cli("certify", *joint, "--shard", f"{k}/2", "--out", f"part{k}", "-q")[0] == 0
    found = json.loads(cli("certified-accuracy", "part1", "part2", "--json")[1])
    assert list(found["any_sigma"].values()) == [whole["any_sigma"]]
    assert "(joint)" in cli("certified-accuracy", "part1", "part2")[1]


def test_the_first_that_is_named_is_compared(cli: Cli, tmp_path: Path) -> None:
    one = (*ONE, "--sigma", "0.1")
    assert cli("certify", *one, "--out", "run", "--log", "log.tsv", "-q")[0] == 0
    for order in (("log.tsv", "run"), ("run", "log.tsv")):
        found = json.loads(cli("certified-accuracy", *order, "--compare", "--json")[1])
        assert found["differences"][0]["first"] == found["curves"][0]["name"]
        assert (found["curves"][0]["name"] == "log") == (order[0] == "log.tsv")


def test_logs_beside_a_run_are_emulated_alone(cli: Cli) -> None:
    assert cli("certify", *SMALL, "--out", "run", "-q")[0] == 0
    alone = json.loads(cli("certified-accuracy", "run", "--alpha", "0.01", "--json")[1])["curves"]
    both = json.loads(
        cli(
            "certified-accuracy", "run", str(LOG), "--alpha", "0.01", "--log-samples", "100000",
            "--json",
        )[1]
    )["curves"]  # fmt: skip
    assert both[:-1] == alone
    assert both[-1]["name"].endswith("as 100,000 samples")
    assert both[-1]["largest_radius"] >= read_log(LOG).radii.max()  # at a larger alpha


def test_bounds_over_images_are_told(cli: Cli, tmp_path: Path) -> None:
    arguments = ("certified-accuracy", str(LOG), "--radii", "0,0.25")
    assert "wrong by chance, at most (95 %)" in cli(*arguments, "--log-alpha", "0.01")[1]
    assert "wrong by chance" not in cli(*arguments)[1]  # no log says its alpha
    unknown = json.loads(cli(*arguments, "--json")[1])
    assert unknown["curves"][0]["alpha"] is None
    assert {row["truly_certified_at_least"] for row in unknown["rows"]} == {None}
    found = json.loads(cli(*arguments, "--log-alpha", "0.01", "--json")[1])
    for row, best in zip(found["rows"], found["best"], strict=True):
        # Of 200 certificates at alpha 0.01, at most 5 are wrong with 95 %: P(X <= 5) = 0.984.
        assert row["truly_certified_at_least"] == pytest.approx(row["value"] - 5 / 200)
        assert best["truly_certified_at_least"] == row["truly_certified_at_least"]
    assert found["bound_fails"] == 0.05
    other = tmp_path / "other_sigma_0.50.tsv"
    other.write_text(LOG.read_text())
    two = json.loads(cli(*arguments, str(other), "--log-alpha", "0.01", "--json")[1])
    # The best of two: each has half of the 5 %, and P(X <= 5) is enough for that too.
    assert two["best"][0]["truly_certified_at_least"] == pytest.approx(
        two["best"][0]["value"] - 0.025
    )


def test_a_dry_run_counts_and_warns(cli: Cli) -> None:
    code, out, err = cli("certify", *SMALL, "--dry-run")
    assert code == 0
    assert "1,320 network evaluations for 3 images" in out
    assert "reaches at most" in err
    found = json.loads(cli("certify", *SMALL, "--dry-run", "--json")[1])
    assert (found["dry_run"], found["evaluations"]) == (True, 1320)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("certify --sigma 0", ["sigma 0", "is not positive", "0.25"]),
        ("certify --sigma -1", ["sigma -1", "is not positive", "0.25"]),
        ("certify --sigma 0.25,x", ["sigma 'x'", "is not a number"]),
        ("certify --sigma 64", ["sigma 64", "above 40", "64/255"]),
        ("certify --alpha 0", ["alpha 0.0", "outside (0, 1)", "0.001"]),
        ("certify --alpha 1", ["alpha 1.0", "outside (0, 1)", "0.001"]),
        ("certify --samples 5", ["5 samples", "can certify nothing", "use 10 or more"]),
        ("certify --samples 0", ["samples 0", "is not a whole number of 1 or more", "use 1"]),
        ("certify --samples 10007", ["10007 samples", "blocks of 1000", "use 10000"]),
        ("certify -p cohen", ["procedure 'cohen'", "is not known", "fixed, anytime"]),
        ("certify --radii x", ["radius 'x'", "is not a number"]),
        ("certify --shard 3", ["shard '3'", "is not i/k", "1/4"]),
        ("certify --defense cm --sigma 0.0001", ["sigma 0.0001", "digits-cm covers", "--weights"]),
        ("certify --defense zm", ["defense 'zm'", "is not known"]),
        ("certify --counts nowhere", ["nowhere", "is no run folder"]),
        ("certify --log nowhere.tsv --plot x.gif", ["x.gif", "is no picture", ".png"]),
        ("certified-accuracy nowhere.tsv", ["nowhere.tsv", "is not there"]),
        ("certified-accuracy empty.tsv", ["empty.tsv", "is empty"]),
        ("certified-accuracy foreign.csv", ["foreign.csv", "columns"]),
        ("certified-accuracy good.tsv --radii -1", ["radius -1", "is not 0 or more"]),
        ("certified-accuracy good.tsv --emulate 100", ["--emulate", "--log-samples"]),
        ("certified-accuracy good.tsv --alpha 0.1", ["alpha 0.1 for logs", "--log-samples"]),
        ("certified-accuracy good.tsv --log-alpha 0", ["alpha 0.0", "outside (0, 1)"]),
        (
            "certified-accuracy good.tsv --emulate 0 --log-samples 100 --sigma 1",
            ["emulate 0", "is not a whole number of 1 or more"],
        ),
        ("certified-accuracy good.tsv -N 50", ["--samples", "is for runs", "--emulate"]),
        ("certified-accuracy good.tsv -p fixed", ["--procedure", "is for runs"]),
        ("certified-accuracy good.tsv --joint", ["--joint", "is for runs"]),
        ("certified-accuracy good.tsv unnamed.tsv --compare", ["unnamed", "no column idx"]),
        ("certified-accuracy broken.tsv", ["line 3", "radius nan"]),
        ("certified-accuracy huge.tsv", ["line 2", "no number in column idx"]),
        ("certify --defense cm --policy majority:3", ["majority:3", "draws no noise", "leave"]),
        ("certify --select-entropy 0.8", ["select entropy 0.8", "two classifiers", "core"]),
        (
            "certify --defense onestep-ddpm --sigma 0.005",
            ["smoothing noise 0.005", "none of the noise levels", "larger sigma"],
        ),
        (
            "certified-accuracy good.tsv --sigma 1 --emulate 1000 --log-samples 100",
            ["1,000 samples", "are more than the 100 that were drawn", "use 100 or fewer"],
        ),
        ("certified-accuracy good.tsv --log good.tsv", ["good.tsv", "is one of those", "another"]),
        ("certified-accuracy good.tsv --log new.csv", ["new.csv", "with tabs", "write new.tsv"]),
        (
            "certified-accuracy good.tsv --log records.sqlite",
            ["records.sqlite", "is written with tabs", "write records.tsv"],
        ),
        ("certified-accuracy good.tsv --compare", ["one set", "name two"]),
        ("certified-accuracy good.tsv --sigma 0.1,0.2", ["2 noise levels", "1 logs"]),
        ("certified-accuracy good.tsv --sigma 0", ["sigma 0", "is not positive"]),
        ("certified-accuracy abstaining.tsv", ["line 2", "label -1", "abstains"]),
    ],
)
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, line: str, parts: list[str]) -> None:
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    (tmp_path / "good.tsv").write_text("idx\tlabel\tpredict\tradius\n0\t1\t1\t0.1\n")
    (tmp_path / "abstaining.tsv").write_text(
        "idx\tlabel\tpredict\tradius\n0\t-1\t-1\t0\n1\t1\t1\t0\n"
    )
    (tmp_path / "unnamed.tsv").write_text("label\tpredict\tradius\n1\t1\t0.1\n")
    (tmp_path / "broken.tsv").write_text(
        "idx\tlabel\tpredict\tradius\n0\t1\t1\t0.1\n1\t2\t2\tnan\n"
    )
    (tmp_path / "huge.tsv").write_text(
        "idx\tlabel\tpredict\tradius\n99999999999999999999\t1\t1\t0.1\n"
    )
    small = ["--dataset", "digits", "-n", "1", "-q"] if line.startswith("certify ") else []
    if small and "--log" in line.split():
        small = [*SMALL, "-q"]
    code, out, err = cli(*line.split(), *small)
    assert code == 2, out + err
    told = [text for text in err.splitlines() if text.startswith("advpure: ")]
    assert err == f"{told[0]}\n", err  # no note before a refusal
    assert (tmp_path / "good.tsv").read_text().count("\n") == 2
    for part in parts:
        assert part in told[0], told[0]
