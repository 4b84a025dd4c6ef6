"""Whatever is written behind a verb, it ends with a result or with one line.

Every verb, with its own options and arguments as typer knows them, gets values of the wrong kind,
range and type behind a line that runs. What may happen: it runs (0), a check of it fails (1, 3), it
refuses in one line of the form "advpure: what; rule; fix" (2), or it works on what it took until
the budget of an example is spent, which presses Ctrl-C (130). An exception is none of these.

The examples are the same in every run (`derandomize`). Nothing is reached outside a scratch folder:
no connection, no other process, no path that leaves it.
"""

import contextlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fuzzing import EACH, Enough, budget
from hypothesis import given, settings
from hypothesis import strategies as st
from lines import LAW, LINES
from typer.main import get_command

from advpure.cli import app, run

pytestmark = pytest.mark.slow

FUZZ = settings(EACH, max_examples=40)

NUMBERS = [
    "-1", "0", "1", "2", "3", "-0.0", "0.5", "1.5", "1e-9", "1e-320", "1e308", "1e999", "inf",
    "-inf", "nan", "8/255", "1/0", "8/255/3", "2147483648", "4294967296", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1" + 30 * "0", "1" * 5000, "0x10", "1_000",
    "\u00b2", "\uff11", "\u0663", "1e5", "100000", "-5",
]  # fmt: skip
LISTS = [
    ",", "1,,2", "1,1", "0,0.25", "0.25,nan", "1,a", "1,2," + 40 * "9", "[1, 2]", "0:3", "3:0",
    "first-0", "first-2", "first-" + 30 * "9", "every-0", "every-2", "100:200", "1/2", "0/2", "3/2",
    "1/" + 30 * "9", "eot:0", "eot:2", "majority:x", "majority:2", "uniform:0.1", "uniform:nan",
    "attack:pgd", "attack:", "uniform",
]  # fmt: skip
WORDS = [
    "", " ", "x", "none", "None", "true", "cm", "ddim", "digits", "digits-cm", "digits-classifier",
    "cifar10", "imagenet", "train", "pgd", "apgd", "transfer", "linf", "l2", "ce", "dlr", "cpu",
    "cuda", "cuda:99", "meta", "hash", "full", "checkpoint", "bpda", "surrogate", "anytime",
    "cascade", "predict", "fixed", "distance", "lpips", "svg", "png", "\u00e9", "\udc80",
    "a" * 5000, "a\nb", "a\tb", "=", "a=b", "t=5", "t=nan", "steps=2", "n=true", "eps=", "a==",
    "clip_x0=maybe", "../x", "..", ".", "missing/x", "missing.toml", "law.yaml", "attacked",
    "certified", "empty.yaml", "bytes.toml", "bytes.yaml", "list.tsv", "x.png", "x.svg", "x.csv",
    "x.parquet", "x.safetensors", "000:theorem-3-3", "000:nothing", "resnet56-cifar10",
    "digits-classifier:x", "nan", "--", "-", "-h",
]  # fmt: skip
TEXTS = st.text(st.characters(exclude_characters="/\x00~", exclude_categories=()), max_size=8)
VALUES = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(LISTS), st.sampled_from(WORDS), TEXTS,
    st.integers().map(str), st.floats().map(str),
)  # fmt: skip


class Verb(NamedTuple):
    """A verb with a line that runs.

    Attributes:
        words: The verb, and the one below it for `models`.
        line: Arguments and options with which it runs quickly.
        options: Its options that take a value.
        flags: Its options that take none.
    """

    words: tuple[str, ...]
    line: tuple[str, ...]
    options: tuple[str, ...]
    flags: tuple[str, ...]


MORE = {
    "models list": "", "models info": "digits-cm",
    "models verify": "resnet56-cifar10", "models convert": "list.tsv --as resnet56-cifar10 --to x",
}  # fmt: skip


def verbs() -> Iterator[Verb]:
    """Yield every verb of the command line, in the order in which their lines must run."""
    group: Any = get_command(app)
    for name, lines in LINES.items():
        own = group.get_command(None, name)
        below = getattr(own, "commands", {})
        if not below:
            yield _verb((name,), lines[-1], own)
        for word, command in below.items():
            yield _verb((name, word), MORE[f"{name} {word}"], command)


def _verb(words: tuple[str, ...], line: str, command: Any) -> Verb:
    options = [each for each in command.params if each.opts[0].startswith("-")]
    flags = [each.opts[0] for each in options if each.is_flag]
    taking = [each.opts[0] for each in options if not each.is_flag]
    return Verb(words, tuple(line.split()), tuple(taking), tuple(flags))


VERBS = list(verbs())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder with the files and runs that the lines name, and nothing to reach beyond it."""
    folder = tmp_path_factory.mktemp("fuzz") / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "law.yaml").write_text(LAW)
    (folder / "empty.yaml").write_text("")
    for name in ("bytes.toml", "bytes.yaml"):
        (folder / name).write_bytes(b'name = "\xff\xfe"\n')
    (folder / "list.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\tx\n")

    def refuse(*given: object, **named: object) -> Any:
        raise OSError("no connection in this test")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("HOME", "XDG_CACHE_HOME", "ADVPURE_DATA"):
            patch.setenv(name, str(folder / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr("advpure.sweeps.executors.Processes.submit", _no_process)
        for verb in ("attack", "certify"):
            for line in LINES[verb]:
                assert run([verb, *line.split()]) == 0
        yield folder


def _no_process(*given: object) -> Any:
    raise Enough


def call(arguments: list[str]) -> tuple[int, str]:
    """Run a line and return its exit code and what it wrote to standard error."""
    out, err = io.StringIO(), io.StringIO()
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), budget():
        code = run(arguments)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    return code, err.getvalue()


@st.composite
def lines(draw: st.DrawFn, verb: Verb) -> list[str]:
    """Draw a line: the one that runs, with one to three options or arguments replaced or added."""
    words = list(verb.line)
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
        kind = draw(st.integers(0, 7))
        if kind == 0 and words:
            words[draw(st.integers(0, len(words) - 1))] = draw(VALUES)
        elif kind == 1 and verb.flags:
            words.append(draw(st.sampled_from(verb.flags)))
        elif verb.options:
            words += [draw(st.sampled_from(verb.options)), draw(VALUES)]
        else:
            words.append(draw(VALUES))
    return [*verb.words, *words]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: "-".join(verb.words))
def test_a_verb_ends_with_a_result_or_one_line(verb: Verb, scratch: Path) -> None:
    @FUZZ
    @given(lines(verb))
    def check(line: list[str]) -> None:
        code, err = call(line)
        told = [each for each in err.split("\n") if each and not each.startswith("note: ")]
        assert code in (0, 1, 2, 3, 130), line
        assert "Traceback" not in err, line
        if code == 2:
            assert len(told) == 1, (line, err)
            assert told[0].startswith("advpure: "), (line, err)
            assert len(told[0]) < 2000, (line, err)

    check()
    assert Path.cwd() == scratch
    assert [each.name for each in scratch.parents[1].iterdir()] == ["a"]


def test_every_verb_is_tried() -> None:
    assert {verb.words[0] for verb in VERBS} == set(LINES)
    assert len(VERBS) > 24
    assert all(verb.options or verb.flags for verb in VERBS)
