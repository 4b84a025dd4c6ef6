"""Options that verbs share: groups become flat options, and at the call groups again."""

import ast
import importlib
import inspect
import json
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from advpure import cli
from advpure.analysis.closed_forms.two_point_study import TwoPoint
from advpure.analysis.runs import RUNS
from advpure.analysis.subject import JudgedSubject as JudgedSettings
from advpure.analysis.subject import Subject as SubjectSettings
from advpure.analysis.survival.study import Survival
from advpure.base.errors import BadInput
from advpure.cli import app
from advpure.cli import groups as g
from advpure.cli.flatten import Group, defaults, flattened, helps, without
from advpure.cli.recorded import Ready, conclude, measure, prepare
from advpure.sweeps.run_figures import RUN_FIGURES

WIDE = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}


@dataclass(frozen=True, kw_only=True)
class Images(Group):
    """Images."""

    panel: ClassVar[str] = "Images"

    n: Annotated[int | None, typer.Option("--n", "-n", help="Images, 1 or more.")] = 10
    subset: Annotated[str, typer.Option(help="Which images.")] = "test"
    keep: Annotated[list[str] | None, typer.Option("--keep", "-k", help="Kept; repeats.")] = None
    fast: Annotated[bool, typer.Option("--fast", help="No checks.")] = False


@dataclass(frozen=True, kw_only=True)
class Labelled(Images):
    """Images with labels; from elsewhere by default."""

    subset: Annotated[str, typer.Option(help="Which labelled images.")] = "train"
    classes: Annotated[int, typer.Option(help="Classes.")] = 10


@dataclass(frozen=True, kw_only=True)
class Speed(Group):
    """Speed."""

    fast: Annotated[bool, typer.Option("--fast", help="Fewer steps.")] = False


def parameters(verb: Any) -> dict[str, inspect.Parameter]:
    """Return the options that typer reads."""
    return dict(inspect.signature(verb).parameters)


def declared(verb: Any, name: str) -> Any:
    """Return how typer is told of an option."""
    return parameters(verb)[name].annotation.__metadata__[0]


def taking(**kinds: Any) -> Callable[..., None]:
    """Return a function of these annotations."""

    def verb(**given: object) -> None:
        raise AssertionError(given)

    only = inspect.Parameter.KEYWORD_ONLY
    taken = [inspect.Parameter(name, only, annotation=kind) for name, kind in kinds.items()]
    verb.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    return verb


def shell(verb: Any, *arguments: str) -> str:
    """Run a verb by typer and return what it prints."""
    one = typer.Typer()
    one.command()(verb)
    done = CliRunner().invoke(one, arguments, env=WIDE)
    assert done.exit_code == 0, done.output
    return done.output


@flattened
def show(
    *,
    images: Images,
    scale: Annotated[float, typer.Option(help="Scale.")] = 1.0,
    name: Annotated[str, typer.Argument(help="Name.")],
) -> None:
    """Show images.

    Example: show digits -n 3
    """
    print(images, scale, name)


@flattened
def change(
    *,
    images: Annotated[
        Images, without("fast"), defaults(n=3, subset="train"), helps(n="Images to change.")
    ],
    fast: Annotated[int, typer.Option(help="How fast, 1 to 9.")] = 1,
) -> Images:
    """Change images."""
    print(images, fast)
    return images


def test_groups_become_flat_options_where_they_stand() -> None:
    flat = parameters(show)
    assert list(flat) == ["n", "subset", "keep", "fast", "scale", "name"]
    assert [each.default for each in flat.values()][:5] == [10, "test", None, False, 1.0]
    assert flat["name"].default is inspect.Parameter.empty
    assert flat["n"].annotation.__origin__ == int | None
    assert flat["keep"].annotation.__origin__ == list[str] | None
    assert declared(show, "n").help == "Images, 1 or more."
    assert declared(show, "n").rich_help_panel == "Images"
    assert declared(show, "scale").rich_help_panel is None


def test_name_and_docstring_are_kept() -> None:
    assert show.__name__ == "show"
    assert inspect.getdoc(show) == "Show images.\n\nExample: show digits -n 3"


def test_the_shell_gives_groups() -> None:
    told = shell(show, "a", "-n", "3", "-k", "x", "--keep", "y", "--fast", "--scale", "2")
    assert told == f"{Images(n=3, keep=['x', 'y'], fast=True)} 2.0 a\n"
    assert shell(show, "a") == f"{Images()} 1.0 a\n"


def test_python_calls_take_options_by_keyword(capsys: pytest.CaptureFixture[str]) -> None:
    show(name="a", subset="first-5")
    assert capsys.readouterr().out == f"{Images(subset='first-5')} 1.0 a\n"
    with pytest.raises(TypeError, match="unexpected keyword argument 'subsets'"):
        show(name="a", subsets="first-5")
    with pytest.raises(TypeError, match="missing a required argument: 'name'"):
        show()


def test_help_has_a_panel_for_each_group() -> None:
    told = shell(show, "--help")
    own, shared = told.split("─ Images ─")
    assert "--scale" in own.split("─ Options ─")[1]
    assert "-n " in shared
    for words in ("Images, 1 or more.", "--n ", "[default: 10]", "--keep", "-k ", "--fast"):
        assert words in shared
        assert words not in own


def test_a_verb_may_change_defaults_and_helps_alone() -> None:
    flat = parameters(change)
    assert list(flat) == ["n", "subset", "keep", "fast"]
    assert (flat["n"].default, flat["subset"].default) == (3, "train")
    assert declared(change, "n").help == "Images to change."
    assert declared(change, "subset").help == "Which images."
    assert shell(change, "-n", "4") == shell(change, "--n", "4")
    assert [declared(show, "n").help, parameters(show)["n"].default] == ["Images, 1 or more.", 10]


def test_what_is_left_out_is_no_option_and_no_setting() -> None:
    images = change(fast=9)
    assert images == Images(n=3, subset="train", absent=frozenset({"fast"}))
    assert images.settings() == {"n": 3, "subset": "train", "keep": None}
    assert Images().settings() == {"n": 10, "subset": "test", "keep": None, "fast": False}
    assert shell(change, "--fast", "9").endswith(" 9\n")


def test_a_subclass_adds_options_and_replaces_them_in_their_place() -> None:
    @flattened
    def label(*, images: Labelled) -> Labelled:
        return images

    assert list(parameters(label)) == ["n", "subset", "keep", "fast", "classes"]
    assert parameters(label)["subset"].default == "train"
    assert declared(label, "subset").help == "Which labelled images."
    assert label(classes=2) == Labelled(classes=2)


def test_the_result_is_the_verbs_own() -> None:
    assert change().n == 3


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ((Images, Speed), "verb has two options fast"),
        ((Images, Images), "verb has two options n"),
        ((Annotated[Images, without("n")], int), "verb has two options subset"),
        ((Annotated[Images, without("t")], Speed), "Images has no option t"),
        ((Annotated[Images, defaults(t=1, u=2)], int), "Images has no option t, u"),
        ((Annotated[Images, helps(panel="x")], int), "Images has no option panel"),
        (
            (Annotated[Images, without("n"), defaults(n=2)], int),
            "Images has left out and changed n",
        ),
    ],
)
def test_a_clash_is_an_error_at_import(kinds: tuple[Any, Any], told: str) -> None:
    with pytest.raises(TypeError, match=f"^{told}$"):
        flattened(taking(images=kinds[0], subset=kinds[1]))


def test_a_group_without_a_default_is_an_error_at_import() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bare(Group):
        n: Annotated[int, typer.Option(help="Images.")]

    with pytest.raises(TypeError, match=r"^Bare has no default for n$"):
        flattened(taking(images=Bare))


@pytest.mark.parametrize(
    ("group", "settings"),
    [(g.Subject, SubjectSettings), (g.JudgedSubject, JudgedSettings)],
)
def test_a_subject_mirrors_the_settings(group: type[g.Subject], settings: type[Any]) -> None:
    """Every option has a setting, every setting an option, and their defaults agree."""
    told = group(dataset="digits", n=0).settings()
    seed = told.pop("seed")  # verbs of several seeds have none
    assert seed == 0
    assert settings(**told) == settings(dataset="digits")
    assert told.keys() == {each for each in settings.__dataclass_fields__}


def test_a_subject_reads_what_is_written_in_shell_form() -> None:
    subject = g.Subject(dataset="digits", option=["clip-x0=true"], t=5)
    told = subject.settings()
    assert (told["n"], told["t"], told["options"]) == (100, 5, {"clip_x0": "true"})
    assert "option" not in told
    assert replace(subject, absent=frozenset({"n", "option", "t"})).settings().keys() == (
        told.keys() - {"n", "options", "t"}
    )
    with pytest.raises(BadInput, match="option 'x' is not KEY=VALUE"):
        g.Subject(dataset="digits", option=["x"]).settings()


def test_an_attack_joins_its_options() -> None:
    told = g.Attacked(steps=3, loss="dlr", attack_option=["eot=2"]).settings()
    joined = {"eot": "2", "steps": 3, "loss": "dlr"}
    assert told == {"eps": None, "norm": None, "attack": "pgd", "attack_options": joined}
    with pytest.raises(BadInput, match="attack option steps=2 is given a second time"):
        g.Attacked(steps=3, attack_option=["steps=2"]).settings()


@pytest.mark.parametrize(
    ("as_json", "quiet", "shown"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_progress_is_shown_unless_quiet_or_json(as_json: bool, quiet: bool, shown: bool) -> None:
    assert g.Running(as_json=as_json, quiet=quiet).shown is shown


def texts(path: Path) -> Iterator[str]:
    """Yield the help texts in a source file, those that are written out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            changed = isinstance(node.func, ast.Name) and node.func.id == "helps"
            for each in node.keywords:
                if (changed or each.arg == "help") and isinstance(each.value, ast.Constant):
                    yield str(each.value.value)


def test_every_help_is_written_once() -> None:
    files = sorted(Path(cli.__file__).parent.glob("*.py"))
    found = Counter(text for path in files for text in texts(path))
    assert found.total() > 150
    assert [text for text, count in found.items() if count > 1] == []


def test_every_default_is_of_its_option() -> None:
    """A mark of another default is not seen by the type checker."""
    checked = 0
    for each in app.registered_commands:
        for option in parameters(each.callback).values():
            if option.default not in (None, inspect.Parameter.empty):
                checked += 1
                assert isinstance(option.default, option.annotation.__origin__), option
    assert checked > 200


# What verbs with settings of a subject do not offer of its options, or mean in another way.
OWN = {
    "certify": {"t", "sigma", "gradient"},  # sigma is a list, and smoothing needs no gradient
    "transport": {"t", "sigma", "gradient", "policy"},
    "timesteps": {"t", "sigma"},  # t is a list: times
    "cr": {"seed"},  # a list: seeds
    "randomness": {"seed"},
}


@pytest.mark.parametrize("name", RUNS.names())
def test_every_verb_of_a_subject_offers_all_its_options(name: str) -> None:
    verb = RUNS.get(name)
    group: type[Group] | None = None
    if issubclass(verb.settings, SubjectSettings):
        judged = issubclass(verb.settings, JudgedSettings)
        group = g.JudgedSubject if judged else g.Subject
        taken = {
            each.name: each
            for each in get_command(app).commands[name].params  # type: ignore[attr-defined]
            if each.rich_help_panel == group.panel
        }
        plain = parameters(flattened(taking(subject=group)))
        assert taken.keys() == plain.keys() - OWN.get(name, set())
    else:
        assert name in ("field", "predict", "two-point")
    assert None not in (verb.prepare, verb.estimate, verb.total)
    assert name in RUN_FIGURES.names()


def recorded(folder: Path, **running: Any) -> Ready:
    """Return a small run of a verb that needs no network."""
    options = g.Running(out=str(folder), **running)
    return prepare("two-point", TwoPoint(noise="0.5,1", draws=20), options)


def test_a_picture_of_another_ending_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"file x\.doc is no picture"):
        prepare("survival", Survival(classifier="nothere"), g.Running(plot="x.doc"))
    with pytest.raises(BadInput, match="model 'nothere'"):
        prepare("survival", Survival(classifier="nothere"), g.Running(plot="x.png"))


def test_a_dry_run_ends_after_the_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        measure(recorded(tmp_path / "run", dry_run=True, as_json=True), "nothing")
    assert ended.value.exit_code == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_measured_drawn_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, drawn = tmp_path / "two.svg", []  # verbs' own tests look at real pictures
    monkeypatch.setattr("advpure.cli.recorded.draw_records", lambda *told: drawn.append(told))
    ready = recorded(tmp_path / "run", plot=str(picture))
    report = measure(ready, "measuring")
    assert report.settings["draws"] == 20
    conclude(ready, report, lambda: print("table"))
    conclude(ready, report, lambda: print("table"), draw=drawn.append)
    line = f"table\nrecords: {report.run}, picture: {picture}\n"
    assert capsys.readouterr().out == 2 * line
    assert drawn == [("two-point", report.run, picture), picture]


def test_json_is_the_report_or_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = recorded(tmp_path / "run", as_json=True)
    report = measure(ready, "measuring")
    for found, told in ((None, report.to_json()), ({"n": 1}, {"n": 1})):
        conclude(ready, report, lambda: print("table"), found)
        assert json.loads(capsys.readouterr().out) == told


def test_no_module_hides_a_function_of_the_package() -> None:
    before = {name: value for name, value in vars(cli).items() if callable(value)}
    for each in pkgutil.iter_modules(cli.__path__):
        importlib.import_module(f"advpure.cli.{each.name}")
    assert {name: vars(cli)[name] for name in before} == before
    assert callable(cli.run)
