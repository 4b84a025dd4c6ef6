"""``advpure attack``: how often does a defense stay right under attack?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.robustness import Prepared, RobustnessReport


def attack(
    defense: o.Defense = "cm",
    fix_random: Annotated[
        bool,
        typer.Option(
            "--fix-random/--fresh-random",
            help="Attack and decide under one randomness configuration, or under disjoint draws.",
        ),
    ] = False,
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    eps: o.Eps = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2. Default: the data set's.")] = None,
    t: o.Strength = None,
    sigma: o.Sigma = None,
    option: o.Options = None,
    attack: Annotated[
        str,
        typer.Option("--attack", "-a", help="pgd, apgd, pgd-eot, bpda, bpda-eot or uniform-noise."),
    ] = "pgd",
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps, 1 or more. Default: 40; 100 for apgd.")
    ] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Step in [0, 1] units. Default: eps / 30.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="ce, margin or dlr. Default: ce.")] = None,
    eot: Annotated[
        int | None, typer.Option(help="Draws per gradient, 1 or more. Default: 1; 15 for *-eot.")
    ] = None,
    iterate: Annotated[
        str | None, typer.Option(help="Return the last or best iterate. Default: last.")
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(help="success: decided images leave; never: all steps. Default: success."),
    ] = None,
    attack_seed: Annotated[
        int | None, typer.Option(help="Seed of the attack's own draws. Default: 0.")
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option("--attack-option", help="Other setting of the attack, KEY=VALUE; repeats."),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help="Decisions per image under fresh randomness, 1 or more. Default: 10."),
    ] = None,
    seed: o.Seed = 0,
    scheme: o.Scheme = "hash",
    transfer_from: Annotated[
        int | None,
        typer.Option(help="Craft under this base seed, decide under --seed (needs --fix-random)."),
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(help="full, checkpoint, bpda or surrogate. Default: exact."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="single, eot:K or majority:K purifications per answer."),
    ] = None,
    weights: o.Weights = None,
    classifier: o.Classifier = None,
    tile: o.Tile = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    out: o.Out = None,
    save_images: Annotated[
        bool,
        typer.Option(
            "--save-images", help="Keep attacked images and draw RUN/images.png from them."
        ),
    ] = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Attack a defense; print clean, noise-only and robust accuracy with 95 % intervals.

    Records go into a run folder; the same command goes on where an interrupted run stopped.

    Example: advpure attack --defense ddpm --t 100 --fix-random --eps 0.1 -n 50
    """
    from advpure.analysis.robustness import (
        RobustnessSettings,
        estimate_robustness,
        measure_robustness,
        prepare,
    )
    from advpure.cli import output

    own = o.given(
        steps=steps, step_size=step_size, loss=loss, eot=eot, iterate=iterate, stop=stop,
        seed=attack_seed,
    )  # fmt: skip
    settings = RobustnessSettings(
        defense=defense, dataset=dataset, subset=subset, n=o.count(n, dataset), t=t, sigma=sigma,
        options=o.parse_options(option), weights=weights, classifier=classifier, attack=attack,
        eps=eps, norm=norm,
        attack_options=o.joined(o.parse_options(attack_option), own),
        randomness="fixed" if fix_random else "fresh", draws=draws, seed=seed,
        scheme=scheme, source_seed=transfer_from, gradient=gradient,  # type: ignore[arg-type]
        policy=policy, tile=tile, device=device,
    )  # fmt: skip
    prepared = prepare(settings)
    if dry_run:
        output.print_estimate(estimate_robustness(prepared), as_json, of_defense=True)
        return
    shown = not (quiet or as_json)
    with output.progress("attacking", len(prepared.images.ids), shown) as bar:
        report = measure_robustness(
            settings, out=out, batch_size=batch_size, keep_images=save_images, progress=bar
        )
    picture = _draw(prepared, report.run) if save_images else None
    if as_json:
        output.print_json(report.to_json() | o.given(images=picture))
        return
    _print(report, picture, prepared.defense.is_random)


def _print(report: "RobustnessReport", picture: str | None, is_random: bool) -> None:
    from advpure.cli import output

    s = report.settings
    model, fixed = s["threat_model"], s["decisions"]["randomness"] == "fixed"
    draws = s["decisions"]["draws"]
    how = f"fixed randomness (seed {s['randomness']['seed']})"
    if not fixed:
        how = f"fresh randomness (seed {s['randomness']['seed']}, {draws} decisions an image)"
    if not is_random:
        how = "no randomness"
    print(
        f"{s['dataset']}, {model['norm']} {model['eps']:.4g}, defense {s['defense']['purifier']}, "
        f"attack {s['attack']['name']}, {how}: robust accuracy "
        f"{output.with_interval(report.headline('adversarial'))} % on {report.n} images"
    )
    names = ("one_shot",) if draws == 1 else ("one_shot", "mean", "worst", "majority")
    heads = {
        "one_shot": "accuracy %" if draws == 1 else "one-shot %", "mean": "mean over draws %",
        "worst": f"worst of {draws} %", "majority": "majority vote %",
    }  # fmt: skip
    rows = [
        [
            stage,
            *(output.with_interval(getattr(report.stages[stage], n)) for n in names),
            str(report.n),
        ]
        for stage in ("clean", "noise", "adversarial")
    ]
    output.print_table(["images", *(heads[name] for name in names), "n"], rows)
    for text in report.notes:
        output.note(text)
    print(f"records: {report.run}" + (f", pictures: {picture}" if picture else ""))


def _draw(prepared: "Prepared", run: Path, columns: int = 8) -> str:
    """Draw clean, adversarial and purified images of the first samples of the run."""
    import torch

    from advpure.figures import Caption, image_grid
    from advpure.records import RecordStore

    data, defense = prepared.images, prepared.defense
    k = min(columns, len(data.ids))
    with RecordStore.read(run) as store:
        attacked = torch.stack([store.get_blob(f"adversarial/{i}") for i in data.ids[:k].tolist()])
    ids = data.ids[:k]
    clean = data.images[:k].cpu()
    view = prepared.decisions.views(defense, ids)[0]
    purifier = view.purifier.at(ids=ids, **o.given(xi=view.xi))  # type: ignore[arg-type]
    with torch.no_grad():  # a picture, not a gradient
        purified = purifier(attacked.to(data.images.device)).cpu().clamp(0, 1)
        said = view(attacked.to(data.images.device)).argmax(1).tolist()
    path = run / "images.png"
    captions = [
        Caption(f"{y} -> {p}", correct=y == p)
        for y, p in zip(data.labels[:k].tolist(), said, strict=True)
    ]
    rows = {"clean": clean, "adversarial": attacked, "purified": purified}
    image_grid(rows, path, captions=captions)
    return str(path)
