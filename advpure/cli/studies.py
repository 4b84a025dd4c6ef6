"""The command of a study, made from its settings: every field is an option, declared once.

The name of an option is the field's, or what its `Flag` says; type, range and default come from the
annotation and the field, the help from the docstring of the class. What a command does beside is
alike for all studies: check, load once, estimate or measure with a bar, draw, print.
"""

import dataclasses
import functools
import importlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature, cleandoc, get_annotations
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from advpure.base.display import Display, Table
from advpure.base.flags import Flag, Keys, Positional, Repeats, documented
from advpure.base.text import read_shard, several
from advpure.base.validation import Range, range_of
from advpure.cli import output
from advpure.cli.options import parse_integers, parse_options
from advpure.cli.values import Verbs, read_number
from advpure.studies import STUDIES

_LONG = 600.0  # seconds, from which a run says before it starts how long it may take
_OPTIONS, _RUNNING = "Options", "Running and results"
_BATCH = "Images in memory at once, 1 or more; changes no result."
_RUN_OPTIONS: tuple[tuple[str, Any, Any, tuple[str, ...], str], ...] = (
    ("batch_size", int | None, None, (), _BATCH),
    ("out", str | None, None, (), "Run folder. Default: runs/VERB-HASH of the settings."),
    ("plot", str | None, None, (), "Draw the figure: a .png, .svg or .pdf file."),
    ("shard", str | None, None, (), "Compute part i of k only: 1/4, 2/4, ...; see advpure merge."),
    ("dry_run", bool, False, ("--dry-run",), "Print evaluations, time and memory, and stop."),
    ("as_json", bool, False, ("--json",), "Print one JSON object and nothing else."),
    ("quiet", bool, False, ("--quiet", "-q"), "No progress bar."),
)


@dataclass(frozen=True)
class Option:
    """An option of a command and the field that it sets.

    Attributes:
        name: Name of the parameter.
        kind: Type that the shell's text is read as.
        default: What the shell has where it is not given.
        flags: Names on the command line.
        help: The help.
        panel: Title above it in the help.
        field: The field that it sets.
        key: The key of the field's mapping that it sets; None for the field itself.
        read: From the shell's value to the field's.
        positional: Whether it has no flag.
        is_size: Whether it takes a number or a fraction such as 8/255, as a text.
    """

    name: str
    kind: Any
    default: Any
    flags: tuple[str, ...]
    help: str
    panel: str
    field: str
    key: str | None = None
    read: Callable[[Any], Any] = lambda value: value
    positional: bool = False
    is_size: bool = False

    @property
    def parameter(self) -> Parameter:
        """The parameter as typer reads it."""
        show: dict[str, Any] = {"help": self.help, "rich_help_panel": self.panel}
        if self.is_size:
            show["metavar"] = "<float>"
        if self.positional:
            info: Any = typer.Argument(help=self.help)
        else:
            info = typer.Option(*self.flags, **show)
        return Parameter(
            self.name,
            Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=getitem(Annotated, (self.kind, info)),
        )


def command_of(verb: str) -> Any:
    """Return the command of a study; one that splits its work itself has a shard of its own."""
    kind: type[Any] = STUDIES.get(verb)
    fields = {each.name for each in dataclasses.fields(kind)}
    running = [option for option in running_options() if option.name not in fields]
    return command_from(verb, kind, running, _run)


def running_options(*names: str) -> list[Option]:
    """Return the options of how a verb runs and where its results go, all or those named."""
    return [
        Option(name, shell, default, flags, text, _RUNNING, name)
        for name, shell, default, flags, text in _RUN_OPTIONS
        if not names or name in names
    ]


def command_from(
    verb: str, kind: type[Any], running: Sequence[Option], act: Callable[..., None]
) -> Any:
    """Return a command whose options are the fields of a settings class.

    Args:
        verb: Its name.
        kind: The class, whose docstring is the help.
        running: Options that are no settings.
        act: What it does, with the settings and with those options by name.
    """
    options = list(options_of(kind))

    def command(**given: Any) -> None:
        how = {each.name: given.pop(each.name) for each in running}
        act(kind(**settings_of(options, given)), **how)

    command.__name__ = verb.replace("-", "_")
    command.__doc__ = help_of(kind)
    parameters = [each.parameter for each in (*options, *running)]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    app = Verbs(add_completion=False)
    app.command(verb)(command)
    return typer.main.get_command(app)


def help_of(kind: type[Any]) -> str:
    """Return what a study's docstring says to somebody who has a shell: all but its fields."""
    paragraphs = cleandoc(kind.__doc__ or "").split("\n\n")
    kept = [text for text in paragraphs if not text.startswith(("Attributes:", "Args:"))]
    return "\n\n".join(" ".join(text.split()) for text in kept).replace("``", "")


def options_of(kind: type[Any]) -> Iterator[Option]:
    """Yield the options of a settings class, field by field."""
    hints, helps = get_type_hints(kind, include_extras=True), documented(kind)
    fields = dataclasses.fields(kind)
    taken = {each.name for each in fields}
    unused = getattr(kind, "unused", ())
    for each in (field for field in fields if field.name not in unused):
        hint, marks = _parts(hints[each.name])
        panel = _panel(kind, each.name)
        yield _option(each, hint, marks, helps.get(each.name, ""), panel)
        for keys in (mark for mark in marks if isinstance(mark, Keys)):
            yield from _keys(keys, each.name, taken, panel)


def settings_of(options: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of the settings class from what the shell gave.

    Raises:
        BadInput: for a text that does not read, or an option of a mapping that is given twice.
    """
    settings: dict[str, Any] = {}
    for option in options:
        value = given[option.name]
        if option.key is None:
            settings[option.field] = option.read(value)
        elif value is not None:
            mapping = settings[option.field]
            if option.key in mapping:
                _refuse_twice(option, value, mapping[option.key])
            settings[option.field] = {**mapping, option.key: option.read(value)}
    return settings


def _refuse_twice(option: Option, value: Any, listed: Any) -> None:
    from advpure.base.errors import BadInput

    flag = "--" + option.name.replace("_", "-")
    what = option.field.replace("_", " ").removesuffix("s")
    raise BadInput(
        f"{what} {option.key}={listed}",
        "is given a second time",
        f"keep {flag} {value} alone, or leave that out",
    )


def _option(
    field: "dataclasses.Field[Any]", hint: Any, marks: Sequence[Any], text: str, panel: str
) -> Option:
    default = None if field.default is dataclasses.MISSING else field.default
    flags = next((mark.names for mark in marks if isinstance(mark, Flag)), ())
    words = get_args(hint) if get_origin(hint) is Literal else ()
    positional = any(isinstance(mark, Positional) for mark in marks)
    option = Option(field.name, str, default, flags, text, panel, field.name, positional=positional)
    if len(words) == 2 and any("/" in flag for flag in flags):  # one flag for either word
        return dataclasses.replace(
            option, kind=bool, default=default == words[0], read=lambda on: words[not on]
        )
    option = dataclasses.replace(option, help=_with_rule(text, hint, marks))
    if hint is bool:
        return dataclasses.replace(option, kind=bool, flags=flags or (_flag(field.name),))
    shell, read = _shell(field.name, hint, any(isinstance(mark, Repeats) for mark in marks))
    if read is parse_options and "-o" not in flags:
        flag = flags[0] if flags else _flag(field.name)
        read = functools.partial(parse_options, example=f"{flag} NAME=VALUE")
    if shell is list:
        return dataclasses.replace(option, kind=list[str] | None, default=None, read=read)
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or None
    optional = default is None and not (positional and field.default is dataclasses.MISSING)
    if positional and not optional:
        default = Parameter.empty
    is_size = shell is float
    if is_size:
        shell, default = str, None if default is None else str(default)
    kind = shell | None if optional else shell
    return dataclasses.replace(option, kind=kind, default=default, read=read, is_size=is_size)


def _shell(name: str, hint: Any, repeats: bool) -> tuple[Any, Callable[[Any], Any]]:
    """Return the type that the shell's text is read as, and from there to the field's value."""
    kinds = _alternatives(hint)
    origins = {get_origin(each) for each in kinds}
    if any(isinstance(origin, type) and issubclass(origin, Mapping) for origin in origins):
        return list, parse_options
    lists = [each for each in kinds if get_origin(each) in (tuple, Sequence)]
    if repeats:
        return list, lambda value: tuple(value or ())
    if lists:
        element = _parts(get_args(lists[0])[0])[0]
        what = name.replace("_", " ").removesuffix("s")
        empty = () if get_origin(lists[0]) is tuple and types.NoneType not in kinds else None
        return str, lambda text: empty if text is None else _listed(text, element, what)
    if {int, types.NoneType} >= set(kinds):
        return int, lambda value: value
    if {float, types.NoneType} >= set(kinds):
        what = name.replace("_", " ")
        return float, lambda text: None if text is None else read_number(text, what)
    return str, lambda value: value


def _listed(text: str, element: Any, what: str) -> Any:
    """Read a list joined by commas; sizes stay text, which their settings read."""
    if element is int:
        return parse_integers(text, what)
    if element is str:
        return list(several(text, str.strip, f"{what}s", "write a,b"))
    return text


def _keys(keys: Keys, field: str, taken: set[str], panel: str) -> Iterator[Option]:
    module, _, name = keys.kind.partition(":")
    kind = getattr(importlib.import_module(module), name)
    hints, helps = get_type_hints(kind, include_extras=True), documented(kind)
    for flag, key in keys.flags.items():
        if flag not in taken:
            hint, marks = _parts(hints[key])
            shell, read = _shell(key, hint, False)
            is_size = shell is float
            shell = str if is_size else shell
            text = _with_rule(helps[key].partition(". ")[0].rstrip(".") + ".", hint, marks)
            text += f" Default: the {keys.owner}'s."
            optional = shell | None
            yield Option(flag, optional, None, (), text, panel, field, key, read, is_size=is_size)


def _parts(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation without its marks, and the marks."""
    if get_origin(annotation) is Annotated:
        hint, *marks = get_args(annotation)
        return hint, tuple(marks)
    return annotation, ()


def _alternatives(hint: Any) -> list[Any]:
    """Return the types of a union without their marks, or the type alone."""
    union = get_origin(hint) in (Union, types.UnionType)
    return [_parts(each)[0] for each in get_args(hint)] if union else [hint]


def _with_rule(text: str, hint: Any, marks: Sequence[Any]) -> str:
    """Add to a help which words or numbers there are."""
    within = [*marks]
    for each in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ():
        within += _parts(each)[1]
    rule = ""
    words = [each for each in _alternatives(hint) if get_origin(each) is Literal]
    if words:
        *some, last = get_args(words[0])
        rule = f"{', '.join(map(str, some))} or {last}" if some else str(last)
        if all(str(word) in text for word in (*some, last)):
            rule = ""
    else:
        rule = _range(range_of(within))
    said, default, rest = text.partition(" Default:")
    return f"{said.removesuffix('.')}: {rule}.{default}{rest}" if rule else text


def _range(within: Range) -> str:
    low, high = within.least, within.most
    if low is not None and high is not None:
        return f"{_plain(low)} to {_plain(high)}"
    if within.above is not None and within.below is not None:
        return f"between {_plain(within.above)} and {_plain(within.below)}"
    parts = [] if low is None else [f"{_plain(low)} or more"]
    parts += [] if within.above is None else [f"above {_plain(within.above)}"]
    if high is not None and high != float("inf"):
        parts.append(f"at most {_plain(high)}")
    if within.below is not None and within.below < 2**32:
        parts.append(f"below {_plain(within.below)}")
    return ", ".join(parts)


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _panel(kind: type[Any], name: str) -> str:
    """Return the panel of the class that declares a field first."""
    owners = [each for each in kind.__mro__ if name in get_annotations(each)]
    panel: str = owners[-1].__dict__.get("panel", _OPTIONS)
    return panel


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _run(
    study: Any,
    *,
    batch_size: int | None,
    out: str | None,
    plot: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    shard: str | None = None,
) -> None:
    """Check, load, then estimate or measure, draw and print."""
    picture = None if plot is None else Path(plot)
    part = None if shard is None else read_shard(shard)
    study.check_pictures(picture)
    if study.recalls and dry_run:
        from advpure.base.errors import BadInput

        raise BadInput("a dry run of records", "computes nothing anyway", "leave out --dry-run")
    loaded = None if study.recalls else study.load()
    if part is not None and loaded is not None:
        loaded = study.share(loaded, part)
    untold = [] if study.recalls else list(study.before(loaded))
    before = tuple(untold)

    def tell() -> None:
        while untold:
            output.note(untold.pop(0))

    if dry_run:
        cost = study.cost(loaded)
        tell()
        output.print_estimate(cost, as_json, study.of_defense)
        raise typer.Exit
    shown = not (quiet or as_json or study.recalls)
    total, each = study.total(loaded) if shown else 0, None
    if shown and total and not _is_done(study, loaded, out):
        cost = study.cost(loaded)
        each = cost.evaluations / total
        if cost.seconds > _LONG:
            untold.append(
                f"at most {output.duration(cost.seconds)} here for {cost.images} images; shorter "
                f"with {study.shorter}; --dry-run estimates and stops"
            )
    with output.progress(study.doing, total, shown, each) as bar:

        def progress(done: int) -> None:
            tell()  # the work begins: what is refused is refused by now, in one line
            bar(done)

        how = {"shard": part} if study.recalls else {"loaded": loaded}
        report = study.run(out=out, batch_size=batch_size, progress=progress, **how)
    tell()
    pictures = study.pictures(report, loaded, picture)
    if as_json:
        output.print_json(report.to_json() | pictures)
    else:
        where = "from records, nothing was computed" if study.recalls else ""
        print_report(report, pictures, where, known=before)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _is_done(study: Any, loaded: Any, out: str | None) -> bool:
    """Return whether a run's folder holds all of it, so that nothing will be computed."""
    from advpure.base.errors import BadInput
    from advpure.runs.records import RecordStore

    folder = study.folder(loaded) if out is None else Path(out)
    try:
        with RecordStore.read(folder) as store:
            return store.finished
    except BadInput:  # the run itself says what is wrong with it
        return False


def print_report(
    report: Any,
    pictures: Mapping[str, Any] | None = None,
    where: str = "",
    known: Sequence[str] = (),
) -> None:
    """Print a report, its notes but those that are known, and where its records are."""
    show(report.display())
    for text in report.notes:
        if text not in known:
            output.note(text)
    written = [each for value in (pictures or {}).values() for each in _paths(value)]
    print((where or f"records: {report.run}") + "".join(f", {_named(path)}" for path in written))


def _named(path: str) -> str:
    return f"picture: {path}" if path.endswith((".png", ".svg", ".pdf")) else path


def _paths(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str) else [*map(str, value)]


def show(display: Display) -> None:
    """Print what a report shows."""
    print(display.headline)
    for part in display.parts:
        if isinstance(part, Table):
            output.print_table(part.columns, part.rows, title=part.title)
        else:
            print(part)
