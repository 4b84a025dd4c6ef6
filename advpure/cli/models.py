"""``advpure models``: the networks, and the official checkpoints: info, verify, convert."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from advpure.cli import options as o
from advpure.cli.values import Verbs

FAILED = 1


class _NameOrCommand(TyperGroup):
    """Let ``advpure models NAME`` mean ``advpure models info NAME``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Read a word that is no subcommand as the argument of `info`."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["info", *args]
        return super().resolve_command(ctx, args)


models = Verbs(cls=_NameOrCommand)
Entry = Annotated[str, typer.Argument(help="An official checkpoint; `advpure models` lists them.")]


@models.callback(invoke_without_command=True)
def everything(ctx: typer.Context, as_json: o.Json = False) -> None:
    """List purifiers, attacks, metrics, networks, official checkpoints; check and convert them.

    Example: advpure models
    """
    if ctx.invoked_subcommand is None:
        listing(as_json)


@models.command("list")
def listing(as_json: o.Json = False) -> None:
    """List everything by name.

    Example: advpure models list --json
    """
    from advpure.analysis import METRICS
    from advpure.attacks import ATTACKS
    from advpure.attacks.engines.contract import LIBRARIES
    from advpure.checkpoints.catalogue import CHECKPOINTS
    from advpure.cli import output
    from advpure.models import list_models
    from advpure.own_classifiers import CLASSIFIERS
    from advpure.purifiers import PURIFIERS

    kinds: dict[str, Any] = {"purifiers": PURIFIERS, "attacks": ATTACKS, "metrics": METRICS}
    kinds["libraries"] = LIBRARIES
    kinds |= {"classifiers": CLASSIFIERS} if len(CLASSIFIERS) else {}
    named = {
        kind: {name: registry.about(name) for name in registry.names()}
        for kind, registry in kinds.items()
    }
    official = {name: CHECKPOINTS.about(name) for name in CHECKPOINTS.names()}
    if as_json:
        output.print_json({**named, "networks": list_models(), "checkpoints": official})
        return
    for kind, entries in named.items():
        output.print_list(kind, list(entries.items()))
    output.print_list("networks", [(name, _first_fact(name)) for name in list_models()])
    output.print_list("official checkpoints, as NAME:FILE", list(official.items()))


@models.command()
def info(
    name: Annotated[str, typer.Argument(help="A shipped network or an official checkpoint.")],
    as_json: o.Json = False,
) -> None:
    """Show a shipped network's card, or where an official checkpoint comes from.

    Example: advpure models info pesser-ddpm-cifar10
    """
    from advpure.base.validation import check_choice
    from advpure.checkpoints.catalogue import CHECKPOINTS
    from advpure.cli import output
    from advpure.models import list_models, model_path

    if name in list_models():
        path = model_path(name)
        if as_json:
            from advpure.networks.weights import load_network

            output.print_json(load_network(path).metadata)
        else:
            print(path.with_suffix(".md").read_text(), end="")
        return
    check_choice(name, (*list_models(), *CHECKPOINTS.names()), "network")
    facts = _facts(CHECKPOINTS.get(name))
    if as_json:
        output.print_json(facts)
        return
    for fact, value in facts.items():
        if value is not None:
            print(f"{fact:<11} {value:,}" if isinstance(value, int) else f"{fact:<11} {value}")
    option = _option(facts["kind"])
    hub = f"{option} {name} (from the hub), or " if facts["source"].startswith("hf:") else ""
    print(f"use         {hub}{option} {name}:FILE")


@models.command()
def verify(
    entry: Entry,
    weights: Annotated[str | None, typer.Option(help="The file that is meant to be it.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Prove the full network, not a narrow one: minutes.")
    ] = False,
    as_json: o.Json = False,
) -> int:
    """Check a checkpoint: checksum, parameters, keys, and our network against official outputs.

    The stored outputs were computed by the official code from random weights that are drawn again
    here, so the network can be checked without the file.

    Example: advpure models verify resnet56-cifar10 --weights resnet56-4bfd9763.th
    """
    from advpure.checkpoints.catalogue import CHECKPOINTS
    from advpure.checkpoints.verify import verify as check
    from advpure.cli import output

    result = check(CHECKPOINTS.get(entry), weights, "full" if full else "small")
    if as_json:
        keys = result.keys._asdict() if result.keys is not None else None
        output.print_json({**vars(result), "keys": keys, "passed": result.passed})
        return 0 if result.passed else FAILED
    print(f"network     {result.parameters:,} parameters, {result.expected_parameters:,} expected")
    print(f"wiring      {result.deviation:.1e} from the official code's outputs, 1e-5 allowed")
    if result.keys is not None:
        sums = {True: "as published", False: "NOT the published one", None: "none is published"}
        print(f"checksum    {sums[result.checksum]}")
        print(f"file        {result.tensors:,} tensors, {result.file_parameters:,} parameters")
        for fault, names in result.keys._asdict().items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            print(f"{fault:<11} {len(names)}{': ' if names else ''}{', '.join(names[:3])}{more}")
    print(f"{entry} {'passes' if result.passed else 'FAILS'}")
    return 0 if result.passed else FAILED


@models.command()
def convert(
    file: Annotated[
        str,
        typer.Argument(
            help="An official file, a folder or an index of shards; FILE@raw or FILE@ema chooses "
            "where it holds both kinds of weights."
        ),
    ],
    entry: Annotated[str, typer.Option("--as", help="Which official checkpoint it is.")],
    to: Annotated[str, typer.Option(help="Target, a .safetensors file.")],
    any_checksum: Annotated[
        bool, typer.Option("--any-checksum", help="Take a file that is meant to differ.")
    ] = False,
) -> None:
    """Store an official file's tensors as safetensors; no code of the file runs.

    Example: advpure models convert edm.pkl --as edm-cifar10-uncond-vp --to edm.safetensors
    """
    from advpure.checkpoints.catalogue import CHECKPOINTS
    from advpure.checkpoints.files import convert as store

    known = CHECKPOINTS.get(entry)
    count = store(known, file, to, any_checksum=any_checksum)
    print(f"{count} tensors of {entry} in {to}; use it with {_option(known.kind)} {to}")


def _option(kind: str) -> str:
    """Return the option that takes a checkpoint of a kind."""
    return "--weights" if kind == "denoiser" else "--classifier"


def _first_fact(name: str) -> str:
    from advpure.models import model_path

    lines = model_path(name).with_suffix(".md").read_text().splitlines()
    return next((line.rstrip(".") for line in lines[1:] if line.strip()), "")


def _facts(entry: Any) -> dict[str, Any]:
    """Return everything that is known of an entry, without building anything."""
    names = (
        "name",
        "about",
        "kind",
        "dataset",
        "source",
        "licence",
        "parameters",
        "tensors",
        "quality",
        "accuracy",
        "bytes",
        "checksum",
    )
    return {name: getattr(entry, name) for name in names}
