"""The options that several verbs share, each with unit, range and an example in its help."""

from typing import Annotated

import typer

from advpure.base.defaults import DEFAULT_DATASET as DEFAULT_DATASET

Defense = Annotated[
    str, typer.Option("--defense", "-d", help="Purifier; `advpure models` lists them.")
]
Dataset = Annotated[
    str,
    typer.Option(help="Data set; `advpure data` lists them, $ADVPURE_DATASET changes the default."),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--n",
        "-n",
        help="Images, 1 or more; 0 for all. Default: the data set's of a whole split, else all.",
    ),
]
Subset = Annotated[
    str, typer.Option(help="Which images: test, train, first-100, every-20th, 100:200, or a file.")
]
Eps = Annotated[
    str | None,
    typer.Option(help="Radius in [0, 1] units, above 0, e.g. 8/255. Default: the data set's."),
]
Strength = Annotated[
    int | None, typer.Option("--t", help="Strength in time steps, 1 to 1000, e.g. 100.")
]
Sigma = Annotated[
    float | None, typer.Option(help="Strength as noise level in [0, 1] units, e.g. 0.25.")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Option of the purifier, e.g. -o clip_x0=true; repeats."),
]
Seed = Annotated[int, typer.Option(help="Base seed of the defense's randomness, 0 to 2^32 - 1.")]
Scheme = Annotated[str, typer.Option(help="Noise keys: hash (the paper's) or counter.")]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights of the denoiser: a file, a shipped name, or official NAME:FILE."),
]
Classifier = Annotated[str | None, typer.Option(help="Weights of the classifier, likewise.")]
Outputs = Annotated[
    str, typer.Option(help="What the classifier answers with: logits, probabilities or labels.")
]
Distribution = Annotated[str, typer.Option(help="uniform, gaussian or sign.")]
Gradient = Annotated[
    str | None, typer.Option(help="full, checkpoint, bpda or surrogate. Default: exact.")
]
Policy = Annotated[
    str | None, typer.Option(help="single, eot:K or majority:K purifications per answer.")
]
Norm = Annotated[str | None, typer.Option(help="linf or l2. Default: the data set's.")]
Attack = Annotated[str, typer.Option("--attack", "-a", help="Attack; `advpure models` lists them.")]
Steps = Annotated[
    int | None, typer.Option(help="Gradient steps, 1 or more. Default: 40; 100 for apgd.")
]
StepSize = Annotated[str | None, typer.Option(help="Step in [0, 1] units. Default: eps / 30.")]
Bisections = Annotated[int, typer.Option(help="Halvings of the bracket, 0 to 30.")]
Loss = Annotated[str | None, typer.Option(help="ce, margin or dlr. Default: ce.")]
AttackOptions = Annotated[
    list[str] | None,
    typer.Option("--attack-option", help="Other setting of the attack, KEY=VALUE; repeats."),
]
Tile = Annotated[
    int | None, typer.Option(help="Images per network call, 1 or more; 0: batches as they come.")
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images in memory at once, 1 or more; changes no result.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")]
Out = Annotated[
    str | None, typer.Option(help="Run folder. Default: runs/VERB-HASH of the settings.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Plot = Annotated[str | None, typer.Option(help="Draw the figure: a .png, .svg or .pdf file.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print evaluations, time and memory, and stop.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def parse_options(pairs: list[str] | None, example: str = "-o clip_x0=true") -> dict[str, str]:
    """Split KEY=VALUE options.

    Args:
        pairs: The options.
        example: One that is right, for the message.

    Raises:
        BadInput: for an option without '=', or one that is given twice.

    Example:
        >>> parse_options(["clip_x0=true"])
        {'clip_x0': 'true'}
    """
    from advpure.base.errors import BadInput

    parsed = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise BadInput(f"option {pair!r}", "is not KEY=VALUE", f"write {example}")
        name = key.strip().replace("-", "_")
        if name in parsed:
            raise BadInput(f"option {name!r}", "is given twice", "keep one of them")
        parsed[name] = value.strip()
    return parsed


def count(n: int | None, dataset: str, subset: str = "test", first: int = 0) -> int | None:
    """Return how many images are meant, None for all.

    Args:
        n: What was asked; None for nothing, 0 for all.
        dataset: Name of the data set.
        subset: Which images; a choice of some is meant as a whole.
        first: Images from the front of a whole split; 0 for as many as the data set says.

    Example:
        >>> count(None, "digits"), count(0, "digits"), count(5, "digits")
        (100, None, 5)
        >>> count(None, "digits", "first-5") is None
        True
    """
    from advpure.data import dataset_info
    from advpure.data.subsets import is_whole

    default = first or dataset_info(dataset).first
    if n is None:
        return default if is_whole(subset) else None
    return n or None


def given(**options: object) -> dict[str, object]:
    """Keep the options that were given.

    Example:
        >>> given(steps=3, loss=None)
        {'steps': 3}
    """
    return {name: value for name, value in options.items() if value is not None}


def joined(listed: dict[str, str], own: dict[str, object]) -> dict[str, object]:
    """Join KEY=VALUE options with those that have a flag of their own.

    Raises:
        BadInput: for one that is given in both ways.
    """
    from advpure.base.errors import BadInput

    for name in listed.keys() & own.keys():
        raise BadInput(
            f"attack option {name}={listed[name]}",
            "is given a second time",
            f"keep --{name.replace('_', '-')} {own[name]} alone, or leave that out",
        )
    return {**listed, **own}


def parse_integers(text: str, what: str) -> list[int]:
    """Read a comma-separated list of different whole numbers.

    Raises:
        BadInput: naming the entry that is none, or the list that repeats one.

    Example:
        >>> parse_integers("0,123,295", "seed")
        [0, 123, 295]
    """
    from advpure.base.text import read_whole, several

    fix = "write 0,1,2"
    return list(several(text, lambda one: read_whole(one, what, fix=fix), f"{what}s", fix))
