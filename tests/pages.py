"""Run a page of documentation as it stands: `python pages.py PAGE TREE`, in an empty folder.

The fenced blocks run in order. What a block does follows from its first word, its info string:

* ``python PATH``, ``toml PATH``: the file of that path, written into the source tree TREE (or into
  the empty folder, for a path without a folder);
* ``diff PATH``: lines added (+) to a file of TREE, below the line that stands before them; what
  follows sees the changed package, as a new interpreter would;
* ``python``: code, run in one namespace until the next diff;
* ``sh``: commands, each of which must succeed; lines after ``#`` are comments. Our own commands run
  in copies of this process, which has imported torch, and a fresh package;
* ``text``: what the block before it printed; ``...`` stands for any text, also over lines.

A block marked ``<!-- not run: REASON -->`` in the line above its fence is left out.
"""

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
_HEAVY = ("torch", "numpy", "scipy.stats", "sklearn.datasets", "rich.progress", "typer")
_MANY = ("sweep", "reproduce", "train")
_SOURCES = ("advpure", "attacks", "analysis", "experiments")
_FENCE = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SKIP = re.compile(r"<!-- not run: (.+?) -->\s*\Z")


class Block(NamedTuple):
    """A fenced block: its language, its path or "", its text, its line, why it is not run."""

    language: str
    path: str
    text: str
    line: int
    skipped: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    for match in _FENCE.finditer(page):
        before = page[: match.start()]
        skip = _SKIP.search(before)
        yield Block(
            match[1], match[2] or "", match[3], before.count("\n") + 1, skip[1] if skip else ""
        )


def add_lines(text: str, diff: str) -> str:
    """Add the + lines of a diff below the line that precedes them, which must occur once."""
    lines = text.splitlines()
    place = None
    for line in diff.splitlines():
        mark, content = line[:1], line[1:]
        if mark == "+":
            if place is None:
                raise ValueError(f"no line before {line!r}")
            place += 1
            lines.insert(place, content)
        elif mark == " ":
            if lines.count(content) != 1:
                raise ValueError(f"line {content!r} occurs {lines.count(content)} times")
            place = lines.index(content)
        else:
            raise ValueError(f"line {line!r} of a diff begins with neither blank nor +")
    return "\n".join(lines) + "\n"


def same(printed: str, expected: str) -> bool:
    """Compare output with its template, where ... stands for anything; blanks at ends are free."""
    tidy = ["\n".join(line.rstrip() for line in text.splitlines()) for text in (printed, expected)]
    pattern = ".*?".join(re.escape(part) for part in tidy[1].split("..."))
    return re.fullmatch(pattern, tidy[0], re.DOTALL) is not None


def copy_sources(tree: Path) -> None:
    """Copy the package, links kept, so that a page can add to it."""
    for name in _SOURCES:
        shutil.copytree(ROOT / name, tree / name, symlinks=True)


def environment(tree: Path) -> dict[str, str]:
    """Put the tree first on Python's path, and a command `advpure` that runs it on the shell's."""
    commands = tree / "bin"
    commands.mkdir()
    command = commands / "advpure"
    start = "from advpure.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$@"\n')
    command.chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ.get('PATH', '')}"
    inherited = {name: text for name, text in os.environ.items() if name != "ADVPURE_DATASET"}
    return {
        **inherited, "PYTHONPATH": str(tree), "PATH": path, "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }  # fmt: skip


def run(page: Path, tree: Path, folder: Path) -> None:
    """Run every block; the first that fails raises, naming its line."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    printed = ""
    for block in blocks(page.read_text()):
        if block.skipped:
            continue
        try:
            printed = _run(block, tree, folder, namespace, printed)
        except BaseException as error:
            error.add_note(f"in the block at line {block.line} of {page.name}")
            raise


def _run(block: Block, tree: Path, folder: Path, namespace: dict[str, Any], printed: str) -> str:
    if block.language == "text":
        assert same(printed, block.text), f"printed:\n{printed}\nexpected:\n{block.text}"
        return printed
    if block.language == "diff":
        target = tree / block.path
        target.write_text(add_lines(target.read_text(), block.text))
        _forget(namespace)
        return ""
    if block.path:
        target = (tree if "/" in block.path else folder) / block.path
        assert not target.exists(), f"{block.path} exists already"
        target.write_text(block.text)
        return ""
    if block.language == "python":
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block.text, f"line {block.line}", "exec"), namespace)
        return output.getvalue()
    if block.language == "sh":
        return "".join(_command(line, folder) for line in _lines(block.text))
    raise ValueError(f"a block of language {block.language!r} cannot be run")


def _lines(text: str) -> list[str]:
    """Join lines that end in a backslash; commands of the shell's own stay one text."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return lines if all(map(_is_plain, lines)) else [text]


def _is_plain(line: str) -> bool:
    """Whether a line is a command of ours, in one process, that asks nothing of the shell."""
    words = line.split()
    return words[0] == "advpure" and words[1] not in _MANY and not set(line) & set("|<>&;$`*~#")


def _command(line: str, folder: Path) -> str:
    """Run a command; one of ours in a copy of this process, which has torch at hand already."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        if "\n" in line.strip() or not _is_plain(line):
            code = subprocess.run(
                ["sh", "-ec", line], cwd=folder, stdout=out, stderr=errors, check=False
            ).returncode
        else:
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                _become(shlex.split(line), folder)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        errors.seek(0)
        printed = out.read()
        assert code == 0, f"{line}\n{printed}\n{errors.read()}"
    return printed


def _become(words: list[str], folder: Path) -> NoReturn:
    """Go on as a new process that was started with these words."""
    code: Any = 1
    try:
        os.chdir(folder)
        sys.argv = words
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        _forget({})
        importlib.import_module("advpure.cli").main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _forget(namespace: dict[str, Any]) -> None:
    """Begin as a new interpreter would, since the package has changed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "advpure"]:
        del sys.modules[name]
    namespace.clear()
    namespace["__name__"] = "__page__"


if __name__ == "__main__":
    for name in _HEAVY:  # what every command imports, once
        importlib.import_module(name)
    run(Path(sys.argv[1]), Path(sys.argv[2]), Path.cwd())
