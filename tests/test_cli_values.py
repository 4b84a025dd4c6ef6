"""No option of any verb takes blanks, endless numbers or what is none; idle options are told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from advpure.analysis.steps.study import Steps
from advpure.analysis.subject import Subject
from advpure.base.errors import BadInput
from advpure.cli import app, run
from advpure.cli.options import parse_integers, parse_options
from advpure.cli.values import checked

Refused = Callable[..., str]
LOG = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.1\t1\t0\n1\t1\t1\t0.2\t1\t0\n"


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Return a runner in a folder with a log, which checks the form of a refusal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVPURE_DATASET", "digits")
    (tmp_path / "good.tsv").write_text(LOG)

    def call(*arguments: str) -> str:
        capsys.readouterr()
        code = run(arguments)
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("advpure: ")
        assert err.count("\n") == 1
        assert len(err) < 700
        return err

    return call


def options() -> list[tuple[str, str, str]]:
    """Return verb, option and kind of every option that takes a value."""
    group: Any = typer.main.get_command(app)
    found = []
    for name in group.list_commands(None):
        for option in getattr(group.get_command(None, name), "params", []):
            if option.param_type_name == "option" and not option.is_flag:
                found.append((name, option.opts[0], option.name))
    return found


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("attack --eps 1/255 --eps 2/255", "--eps"),
        ("attack -n 2 --n 2", "--n"),
        ("attack --fix-random --fresh-random", "--fix-random/--fresh-random"),
        ("models convert a --as b --as c --to d", "--as"),
    ],
)
def test_an_option_that_takes_one_value_is_given_once(
    refused: Refused, line: str, names: str
) -> None:
    told = refused(*line.split())
    assert told == f"advpure: option {names} is given twice; keep one of them\n"


@pytest.mark.parametrize(
    "option", ["--steps 3", "--until 1", "--out x", "--from digits-cm", "--restart"]
)
def test_options_of_a_training_need_its_recipe(refused: Refused, option: str) -> None:
    assert refused("train", *option.split()).startswith(
        f"advpure: {option} means nothing without a recipe; name one"
    )


def test_a_list_of_recipes_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--json"]) == 0
    assert "digits-edm" in json.loads(capsys.readouterr().out)["recipes"]


def test_an_unknown_network_is_told_all_that_have_a_card(refused: Refused) -> None:
    assert "did you mean digits-edm?" in refused("models", "info", "digits-emd")


def test_an_underscore_in_a_name_is_none_in_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    line = "cr --dataset digits -n 2 --perturbations 1 -d ddpm --t 1 -o surrogate_stride=1"
    assert run([*line.split(), "--dry-run"]) == 0, capsys.readouterr().err


OPTIONS = [each for each in options() if each[0] != "models"]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "option", "name"), OPTIONS, ids=lambda each: str(each))
def test_blank_text_and_control_characters_are_refused_by_every_option(
    refused: Refused, verb: str, option: str, name: str
) -> None:
    for value in ("  ", "a\tb\nc", "\x7f"):
        refused(verb, option, value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "is not finite"),
        (float("-inf"), "is not finite"),
        (2**64, "does not fit 64 bits"),
        (-(2**70), "does not fit 64 bits"),
        ("", "is empty"),
        (" ", "is empty"),
        (["a", ""], "is empty"),
        (["a\x00"], "has control characters"),
    ],
)
def test_values_that_mean_nothing_to_any_option(value: object, words: str) -> None:
    def verb(*, some_option: Any) -> Any:
        return some_option

    with pytest.raises(BadInput, match=f"some option .*{words}"):
        checked(verb)(some_option=value)
    for good in (2**64 - 1, 0.5, "a", None, True, ["a"], []):
        assert checked(verb)(some_option=good) == good


LINES: list[tuple[str, list[str]]] = [
    ("certify --alpha 0.999", ["alpha 0.999", "above 0.5", "say nothing"]),
    ("certify --futility 0.2", ["futility 0.2", "means nothing to fixed"]),
    ("certify -p predict --selection 50", ["selection 50", "means nothing to predict"]),
    ("certify -p predict --radii 0,0.5", ["radii '0,0.5'", "mean nothing to predict"]),
    ("certify --outputs labels", ["outputs 'labels'", "digits-classifier", "logits"]),
    ("certify --joint", ["joint", "one noise level"]),
    ("certify --radii 0,nan", ["radius nan", "is not finite"]),
    ("certify --radii 0,,1", ["radii", "empty entry"]),
    ("certify --block ²", ["'²'", "integer"]),
    ("certify --shard ²/3", ["shard '²/3'", "is not i/k"]),
    ("certify --samples 99999999999999999999", ["samples", "64 bits"]),
    ("certified-accuracy good.tsv --log-samples 0", ["log samples 0", "1 or more"]),
    ("certified-accuracy good.tsv --log-samples 100", ["--log-samples 100", "changes nothing"]),
    ("certified-accuracy good.tsv --alpha 0.999", ["alpha 0.999", "above 0.5"]),
    ("certified-accuracy good.tsv --log-alpha nan", ["log alpha nan", "is not finite"]),
    ("certified-accuracy good.tsv --sigma 0.25,", ["sigma", "is not a number"]),
    ("data --from x", ["--from x", "names no data set", "advpure data cifar10"]),
    ("data --to x", ["--to x", "names no data set"]),
    ("distances --resamples 5", ["resamples 5", "--against"]),
    ("transport --grid-sigma 0.5", ["--grid-sigma 0.5", "without --grid"]),
    ("transport --against x", ["--against", "without a picture"]),
    ("transport --grid x.png --pictures 0", ["--grid", "no picture", "--pictures 16"]),
    ("predict x --search tight", ["search 'tight'", "says nothing about runs"]),
    ("predict x --seed 5", ["seed 5", "says nothing about runs"]),
    ("predict x --perturbations 5", ["perturbations 5", "says nothing about runs"]),
    ("predict x --attack apgd", ["attack 'apgd'", "says nothing about runs"]),
    ("predict --sigma 0.25,", ["noise levels", "empty entry"]),
    ("timesteps --steps 3", ["attack options", "without attack times"]),
    ("timesteps --times 1,²", ["time '²'", "is not a whole number"]),
    ("timesteps --times 1,1", ["times 1,1", "repeat a value"]),
    ("predict --device gpu", ["device 'gpu'", "is not known", "cpu, cuda"]),
    ("randomness --eot 1", ["eot 1", "averages nothing"]),
    ("randomness --seeds 0,", ["seeds", "empty entry"]),
    ("steps --singular-basis 9", ["singular basis 9", "without singular values"]),
    ("two-point --noise 1e-320", ["noise", "1e-06 or more"]),
    ("cr -o clip_x0=", ["option 'clip_x0='", "is not KEY=VALUE"]),
    (f"cr --seeds {'9' * 30}", ["seed", "is too large for 64 bits"]),
    (f"cr --subset {'a' * 5000}", ["subset", "is not understood"]),
    (f"cr -d {'a' * 5000}", ["defense", "is not known"]),
]


@pytest.mark.parametrize(("line", "words"), LINES, ids=[line[:40] for line, _ in LINES])
def test_lines_that_mean_nothing_are_refused(refused: Refused, line: str, words: list[str]) -> None:
    told = refused(*line.split())
    assert [part for part in words if part not in told] == []


def test_a_choice_of_images_is_taken_whole_unless_a_number_is_given() -> None:
    def count(n: int | None, subset: str) -> int | None:
        return Subject(dataset="digits", n=n, subset=subset).count

    assert count(None, "first-5") is count(None, "train/every-20th") is None
    assert (count(None, "train"), Steps(dataset="digits").count) == (None, 10)
    assert (count(3, "first-5"), count(0, "test")) == (3, None)


def test_a_subset_without_a_number_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "cr -d none --dataset digits --subset first-5 --perturbations 1 --json"
    assert run(line.split()) == 0
    assert '"n": 5' in capsys.readouterr().out


def test_a_path_that_no_file_can_have_is_one_line(refused: Refused) -> None:
    told = refused("two-point", "--draws", "4", "--out", "a" * 5000)
    assert "file name too long" in told.lower()
    assert [path.name for path in Path().iterdir()] == ["good.tsv"]


def test_lists_and_pairs_of_the_command_line() -> None:
    assert parse_integers("0, 7", "seed") == [0, 7]
    for text in ("", ",", "1,", "x", "-1", "1.5", "9" * 400):
        with pytest.raises(BadInput):
            parse_integers(text, "seed")
    for pairs in (["=1"], ["a"], ["a="], [" =1"], ["a=1", "a=2"]):
        with pytest.raises(BadInput):
            parse_options(pairs)
