"""Options that verbs share, as dataclasses: a verb takes the groups, the shell its flat options.

A `Group` is a frozen dataclass whose fields are options, written as typer wants them. A verb that
is `flattened` may take groups beside options of its own::

    @flattened
    def snr(*, subject: Subject, eps: Eps = "8/255", running: Running) -> None: ...

typer then sees the options of the groups one by one, where the group stands, in a panel of the
group; at the call they are put together again. A verb that differs from a group says how, where it
names the group::

    subject: Annotated[Subject, defaults(defense="ddpm"), helps(n="Images."), without("t")]

What the marks do not name stays as the group has it: flags and types are always the group's. Two
options of one name are an error at import.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields
from inspect import Parameter
from operator import getitem
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Options that belong together; a subclass adds options, and may replace some.

    Attributes:
        panel: Title of the options in the help.
        absent: Options that the verb does not offer; they have the group's defaults here.
    """

    panel: ClassVar[str] = "Options"
    absent: frozenset[str] = frozenset()

    def settings(self) -> dict[str, Any]:
        """Return the values by option, without those that the verb does not offer."""
        names = (each.name for each in fields(self) if each.name != "absent")
        return {name: getattr(self, name) for name in names if name not in self.absent}


@dataclass(frozen=True)
class Change:
    """How a verb differs from a group.

    Attributes:
        absent: Options that it does not offer.
        defaults: Other defaults, by option.
        helps: Other helps, by option.
    """

    absent: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, changes: "Iterable[Change]") -> "Change":
        """Join changes; of two for one option, the last counts."""
        return functools.reduce(
            lambda one, two: cls(
                one.absent | two.absent,
                {**one.defaults, **two.defaults},
                {**one.helps, **two.helps},
            ),
            changes,
            cls(),
        )

    def names(self) -> set[str]:
        """Return the options that are spoken of."""
        return {*self.absent, *self.defaults, *self.helps}


def without(*options: str) -> Change:
    """Mark options of a group that a verb does not offer, or declares itself in another way."""
    return Change(absent=frozenset(options))


def defaults(**values: Any) -> Change:
    """Mark other defaults than the group's."""
    return Change(defaults=values)


def helps(**texts: str) -> Change:
    """Mark other helps than the group's."""
    return Change(helps=texts)


def flattened(verb: Callable[..., Result]) -> Callable[..., Result]:
    """Turn a function of groups into one of their options, as typer reads them.

    Args:
        verb: A function that takes groups and options by keyword. A group may be `Annotated` by
            what `without`, `defaults` and `helps` return.

    Returns:
        A function of options alone, by keyword, with the verb's name and docstring.

    Raises:
        TypeError: for two options of one name, for marks that name no option of their group or
            contradict each other, and for a group with an option that has no default.

    Example:
        >>> import typer
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Images(Group):
        ...     n: Annotated[int, typer.Option("--n", "-n", help="Images.")] = 10
        >>> @flattened
        ... def show(*, images: Images, plain: bool = False) -> str:
        ...     return f"{images.n} images, {plain=}"
        >>> list(inspect.signature(show).parameters)
        ['n', 'plain']
        >>> show(n=3)
        '3 images, plain=False'
    """
    flat: dict[str, Parameter] = {}
    groups: dict[str, tuple[Callable[..., Group], list[str]]] = {}
    signature = inspect.signature(verb)
    for parameter in signature.parameters.values():
        kind, *marks = _parts(parameter.annotation)
        options = [parameter.replace(kind=Parameter.KEYWORD_ONLY)]
        if isinstance(kind, type) and issubclass(kind, Group):
            change = Change.of([mark for mark in marks if isinstance(mark, Change)])
            options = list(_offered(kind, change))
            made = functools.partial(kind, absent=change.absent)
            groups[parameter.name] = made, [option.name for option in options]
        for option in options:
            if option.name in flat:
                raise TypeError(f"{verb.__name__} has two options {option.name}")
            flat[option.name] = option
    shown = signature.replace(parameters=list(flat.values()))

    @functools.wraps(verb)
    def call(**given: Any) -> Result:
        bound = shown.bind(**given)
        bound.apply_defaults()
        values = bound.arguments
        for name, (made, own) in groups.items():
            values[name] = made(**{option: values.pop(option) for option in own})
        return verb(**values)

    call.__signature__ = shown  # type: ignore[attr-defined]
    call.__annotations__ = {name: option.annotation for name, option in flat.items()}
    return call


def _offered(group: type[Group], change: Change) -> Iterator[Parameter]:
    """Yield the options of a group that a verb offers, as it offers them."""
    declared = dict(_declared(group))
    if unknown := change.names() - declared.keys():
        raise TypeError(f"{group.__name__} has no option {', '.join(sorted(unknown))}")
    if both := change.absent & {*change.defaults, *change.helps}:
        raise TypeError(f"{group.__name__} has left out and changed {', '.join(sorted(both))}")
    for name, (kind, info, default) in declared.items():
        if name in change.absent:
            continue
        option = copy(info)
        option.rich_help_panel = group.panel
        option.help = change.helps.get(name, info.help)
        yield Parameter(
            name, Parameter.KEYWORD_ONLY, default=change.defaults.get(name, default),
            annotation=getitem(Annotated, (kind, option)),
        )  # fmt: skip


def _declared(group: type[Group]) -> Iterator[tuple[str, tuple[Any, OptionInfo, Any]]]:
    """Yield the options of a group by name: type, declaration and default."""
    hints = get_type_hints(group, include_extras=True)
    for each in fields(group):
        kind, *marks = _parts(hints[each.name])
        for info in (mark for mark in marks if isinstance(mark, OptionInfo)):
            if each.default is MISSING:
                raise TypeError(f"{group.__name__} has no default for {each.name}")
            yield each.name, (kind, info, each.default)


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Return what `Annotated` joins, or the annotation alone."""
    return get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
