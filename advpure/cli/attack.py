"""``advpure attack``: how often does a defense stay right under attack?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.robustness.run import Prepared, RobustnessReport


@dataclass(frozen=True, kw_only=True)
class Attacked(g.Attacked):
    """An attack with what else of it has a flag here."""

    eot: Annotated[
        int | None, typer.Option(help="Draws per gradient, 1 or more. Default: 1; 15 for *-eot.")
    ] = None
    iterate: Annotated[
        str | None, typer.Option(help="Return the last or best iterate. Default: last.")
    ] = None
    stop: Annotated[
        str | None,
        typer.Option(help="success: decided images leave; never: all steps. Default: success."),
    ] = None
    attack_seed: Annotated[
        int | None, typer.Option(help="Seed of the attack's own draws. Default: 0.")
    ] = None

    def own(self) -> dict[str, object]:
        """Return those of the attack's settings that have a flag and are given."""
        more = o.given(eot=self.eot, iterate=self.iterate, stop=self.stop, seed=self.attack_seed)
        return super().own() | more


@flattened
def attack(
    *,
    subject: g.JudgedSubject,
    fix_random: Annotated[
        bool,
        typer.Option(
            "--fix-random/--fresh-random",
            help="Attack and decide under one randomness configuration, or under disjoint draws.",
        ),
    ] = False,
    attacked: Annotated[
        Attacked, helps(attack="pgd, apgd, pgd-eot, bpda, bpda-eot or uniform-noise.")
    ],
    draws: Annotated[
        int | None,
        typer.Option(help="Decisions per image under fresh randomness, 1 or more. Default: 10."),
    ] = None,
    transfer_from: Annotated[
        int | None,
        typer.Option(help="Craft under this base seed, decide under --seed (needs --fix-random)."),
    ] = None,
    save_images: Annotated[
        bool,
        typer.Option(
            "--save-images", help="Keep attacked images and draw RUN/images.png from them."
        ),
    ] = False,
    running: Annotated[g.Running, without("plot")],
) -> None:
    """Attack a defense; print clean, noise-only and robust accuracy with 95 % intervals.

    Records go into a run folder; the same command goes on where an interrupted run stopped.

    Example: advpure attack --defense ddpm --t 100 --fix-random --eps 0.1 -n 50
    """
    from advpure.analysis.robustness.run import RobustnessSettings
    from advpure.cli import output
    from advpure.cli.recorded import measure, prepare

    settings = RobustnessSettings(
        **subject.settings(), **attacked.settings(), draws=draws, source_seed=transfer_from,
        randomness="fixed" if fix_random else "fresh",
    )  # fmt: skip
    ready = prepare("attack", settings, running)
    report = measure(ready, "attacking", of_defense=True, keep_images=save_images)
    picture = _draw(ready.prepared, report.run) if save_images else None
    if running.as_json:
        output.print_json(report.to_json() | o.given(images=picture))
        return
    _print(report, picture, ready.prepared.defense.is_random)


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

    from advpure.plots.figures import Caption, image_grid
    from advpure.runs.records import RecordStore

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
