"""Record what every verb prints at settings that take seconds: ``python -m golden.record FOLDER``.

Run it in `tests` at two commits and compare the folders, or without a folder to renew the stored
copy that `test_golden` compares with. What a machine decides (times, folders, versions, digests of
code) is left out.
"""

import contextlib
import io
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from advpure.cli import run

HERE = Path(__file__).parent
EXPECTED = HERE / "expected"
_FOLDERLESS = ("certified-accuracy", "reproduce")
_WITHOUT_ROWS = (*_FOLDERLESS, "sweep")
_VOLATILE = re.compile(
    r"(^|\.)(run|seconds|peak_memory|context|versions?|folder|plot|wall\w*|sources?|sessions?|"
    r"warnings|notes|command|sweep)(\.|$|\[)"
)
_RUN = re.compile(r"[0-9a-f]{12}")


def commands() -> dict[str, str]:
    """Return the recorded commands by name; ``{name}`` stands for the run folder of another."""
    lines = (HERE / "commands.txt").read_text().splitlines()
    return {name: line for name, _, line in (each.partition(": ") for each in lines)}


def record(name: str, root: Path) -> dict[str, Any]:
    """Run a command, and what it reads the folders of, below a root.

    Args:
        name: One of `commands`.
        root: Where run folders go; those that are there already are reported from their records.

    Returns:
        JSON values: every value of its JSON and of its exported rows by path, and its notes.
    """
    words = shlex.split(commands()[name])
    for place, word in enumerate(words):
        other = word[1:-1] if word.startswith("{") else ""
        if other in commands():
            record(other, root)
            words[place] = str(root / other)
        elif other == "file":
            words[place] = str(HERE / "sweep.yaml")
    verb, folder = words[0], root / name
    if verb not in _FOLDERLESS:
        words += ["--out", str(folder)]
    said = _call([*words, "--json"], root)
    found: dict[str, Any] = {"values": dict(_flat(json.loads(said.out)))}
    notes = said.err.replace(str(root), "ROOT").splitlines()
    found["notes"] = [line for line in notes if line.startswith("note:")]
    if verb not in _WITHOUT_ROWS:
        rows = root / f"{name}.rows.json"
        _call(["export", str(folder), "--to", str(rows)], root)
        found["rows"] = dict(_flat(json.loads(rows.read_text())))
    return found


class _Said(NamedTuple):
    """What a command wrote to its two streams."""

    out: str
    err: str


def _call(words: list[str], root: Path) -> _Said:
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(
            os.environ, ADVPURE_DATA=str(root / "data")
        ),  # no images but those that ship
        contextlib.chdir(root),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(words)
    said = _Said(out.getvalue(), err.getvalue())
    if code != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {code}: {said.err.strip()}")
    return said


def _flat(value: Any, path: str = "") -> Any:
    """Yield path and value of every leaf that does not depend on the machine."""
    if _VOLATILE.search(path):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{place}]")
    elif not (isinstance(value, str) and _RUN.fullmatch(value)):
        yield path, value


def main(folder: Path) -> None:
    """Record every command into a file of its own."""
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        for name in commands():
            text = json.dumps(record(name, Path(root)), indent=0, sort_keys=True)
            (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXPECTED)
