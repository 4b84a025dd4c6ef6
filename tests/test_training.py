"""Training: resume equals uninterrupted, losses against closed forms, recipes, refusals."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advpure.base.alone import alone
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.data import RawSplit
from advpure.networks import build_network
from advpure.networks.weights import LoadedNetwork, load_network, load_state
from advpure.training import Recipe, list_recipes, load_recipe, train
from advpure.training.augment import flip_images, shift_images
from advpure.training.consistency import ConsistencyTask, heun_step
from advpure.training.edm import EDMTask
from advpure.training.optimization import rate_factor
from advpure.training.order import epoch_batch
from advpure.training.randomness import step_generator
from advpure.training.recipe import OptimizerName
from advpure.training.tasks import Batch
from advpure.training.trainer import Trainer

RECIPE = Recipe(
    name="tiny",
    about="A tiny denoiser",
    task="edm",
    dataset="digits",
    architecture="unet",
    network={"image_size": 8, "image_channels": 1, "channels": [8], "dropout": 0.1},
    steps=12,
    batch=8,
    seed=1,
    warmup=2,
    shift=1,
    flip=True,
    validate_every=4,
)


def trainer(folder: Path, recipe: Recipe = RECIPE) -> Trainer:
    network = build_network("unet", recipe.network, step_generator(recipe.seed, "initial weights"))
    pixels = torch.randint(0, 17, (20, 1, 8, 8), generator=step_generator(0)).to(torch.uint8)
    data = RawSplit(pixels, torch.arange(20) % 10, 16)
    return Trainer(recipe, EDMTask("digits", {}), network, data, folder)


def assert_same(first: Trainer, second: Trainer) -> None:
    for one, two in ((first.network, second.network), (first.average, second.average)):
        for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "radam", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, optimizer: OptimizerName
) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, bias_rate=2.0, order="epochs")
    whole = trainer(tmp_path / "whole", recipe)
    whole.run(12)
    for stop in (3, 8, 12):
        part = trainer(tmp_path / "parts", recipe)
        assert part.resume() == (stop > 3)
        part.run(stop)
    assert_same(whole, part)
    assert [row[:2] for row in whole.rows] == [row[:2] for row in part.rows]
    assert [row[3] for row in whole.rows] == [row[3] for row in part.rows]
    lines = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert lines[0] == "step,loss,seconds,validation_loss"
    assert [line.split(",")[0] for line in lines[1:]] == ["4", "8", "12"]


@pytest.mark.slow
def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    with alone(tmp_path / "run"), pytest.raises(BadInput, match="is being written by another"):
        train(RECIPE, out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").iterdir())
    assert train(RECIPE, out=tmp_path / "run", progress=False).steps == RECIPE.steps


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\nabout = "x"\ntask = "classifier"\ndataset = "digits"\n'
        'architecture = "resnet"\nsteps = 60\nbatch = 16\nseed = 3\nvalidate_every = 20\n'
        "[network]\nimage_channels = 1\nclasses = 10\nchannels = [8]\n"
    )
    whole = train(recipe, out=tmp_path / "whole", progress=False)
    code = (
        "import sys; from advpure.training import train;"
        "train(sys.argv[1], out=sys.argv[2], progress=False, save_seconds=0, steps=60)"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(recipe), str(folder)])
    while not (folder / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] <= 60
    resumed = train(recipe, out=folder, progress=False)
    first, second = load_state(whole.weights), load_state(resumed.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.steps == 60


def test_ctrl_c_finishes_the_step_saves_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path)
    step = run._one_step

    def interrupted() -> float:
        if run.step == 5:
            signal.raise_signal(signal.SIGINT)
        return step()

    monkeypatch.setattr(run, "_one_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(12)
    again = trainer(tmp_path)
    assert again.resume()
    assert again.step == 6
    assert_same(run, again)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_touches_no_global_generator(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trainer(tmp_path).run(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_recipe_or_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run(2)
    with pytest.raises(BadInput, match="another seed"):
        trainer(tmp_path, dataclasses.replace(RECIPE, seed=2)).resume()
    assert trainer(tmp_path, dataclasses.replace(RECIPE, steps=20)).resume()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot be read"):
        trainer(tmp_path).resume()


@pytest.mark.slow
def test_a_checkpoint_of_another_teacher_is_refused(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        load_recipe("digits-cm"), name="tiny-cm", steps=2, batch=4, teacher=None
    )
    teachers = []
    for seed in (1, 2):
        plan = dataclasses.replace(RECIPE, seed=seed, steps=1)
        teachers.append(str(train(plan, out=tmp_path / str(seed), progress=False).weights))
    out, student = (
        tmp_path / "student",
        dataclasses.replace(recipe, teacher=str(tmp_path / "t.safetensors")),
    )
    Path(str(student.teacher)).write_bytes(Path(teachers[0]).read_bytes())
    train(student, out=out, until=1, progress=False)
    train(student, out=out, until=1, progress=False)
    Path(str(student.teacher)).write_bytes(Path(teachers[1]).read_bytes())
    with pytest.raises(BadInput, match="was taught by other weights of that name"):
        train(student, out=out, progress=False)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(2)
    with torch.no_grad():
        run.network.get_parameter("enter.bias").fill_(math.nan)
    with pytest.raises(BadInput, match="at step 2 is not finite"):
        run.run(4)
    again = trainer(tmp_path)
    again.resume()
    assert again.step == 2


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    expected = run.average.state_dict()["enter.weight"].clone()
    for step in (1, 2, 3):
        run.run(step)
        half_life = min(RECIPE.ema_half_life, RECIPE.ema_ramp * step * RECIPE.batch)
        keep = 0.5 ** (RECIPE.batch / half_life)
        expected = keep * expected + (1 - keep) * run.network.state_dict()["enter.weight"]
    assert torch.allclose(run.average.state_dict()["enter.weight"], expected, atol=1e-6)


def test_bfloat16_and_channels_last_train_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advpure.training.trainer.fast_bfloat16", lambda device: True)
    recipe = dataclasses.replace(RECIPE, autocast=True, channels_last=True)
    whole, part = trainer(tmp_path / "a", recipe), trainer(tmp_path / "b", recipe)
    whole.run(4)
    part.run(2)
    again = trainer(tmp_path / "b", recipe)
    again.resume()
    again.run(4)
    assert_same(whole, again)
    assert all(p.dtype == torch.float32 for p in whole.network.parameters())
    plain = trainer(tmp_path / "c")
    plain.run(4)
    assert not torch.equal(
        plain.network.get_parameter("enter.weight"), whole.network.get_parameter("enter.weight")
    )


@pytest.mark.parametrize(("capability", "reduced"), [("AVX512", True), ("AVX2", False)])
def test_bfloat16_is_left_where_it_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: str, reduced: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    recipe = dataclasses.replace(RECIPE, autocast=True)
    assert trainer(tmp_path, recipe).autocast == reduced


class OptimalNetwork(nn.Module):
    """The raw network F of the exact denoiser of N(0, s_data^2) data: zero."""

    def __init__(self) -> None:
        """Have one parameter, for its device."""
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(x)


def test_the_edm_loss_of_the_exact_gaussian_denoiser_is_one() -> None:
    # c_skip alone is exact for N(0, s_data^2): the error variance is s^2 s_data^2/(s^2+s_data^2),
    # which the weight lambda turns into exactly 1 at every noise level
    task = EDMTask("digits", {"sigma_data": 0.5, "p_mean": -0.5, "p_std": 1.0})
    generator = torch.Generator().manual_seed(7)
    clean = 0.5 * torch.randn(20_000, 1, 4, 4, generator=generator)
    losses = task.losses(
        OptimalNetwork(), Batch((clean + 1) / 2, torch.zeros(20_000)), step_generator(1)
    )
    # each loss is chi-squared/16 with 16 degrees of freedom: variance 1/8; 5 standard errors
    assert abs(float(losses.mean()) - 1) < 5 * math.sqrt(1 / 8 / 20_000)
    assert abs(float(losses.var()) - 1 / 8) < 0.01


def test_heun_step_has_local_error_of_third_order_on_gaussian_data() -> None:
    denoiser = GaussianDenoiser(torch.zeros(1, 2, 2), 0.25)
    x = torch.randn(3, 1, 2, 2, generator=step_generator(2), dtype=torch.float64)
    t = torch.full((3,), 1.0, dtype=torch.float64)
    errors = []
    for h in (0.1, 0.05, 0.025):
        s = t - h
        exact = x * (((0.25 + s**2) / (0.25 + t**2)) ** 0.5)[:, None, None, None]
        errors.append(float((heun_step(denoiser, x, t, s) - exact).norm()))
    slopes = [math.log2(errors[k] / errors[k + 1]) for k in range(2)]
    assert all(2.8 < slope < 3.2 for slope in slopes)


def consistency_task(nodes: int = 18, **settings: float) -> ConsistencyTask:
    facts = {"task": "edm", "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
    return ConsistencyTask(
        "digits", {"nodes": nodes, **settings}, LoadedNetwork(OptimalNetwork().eval(), facts)
    )


def test_a_distillation_may_keep_to_the_levels_that_a_purifier_meets() -> None:
    told: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor, level: Tensor) -> Tensor:
            told.append(level)
            return torch.zeros_like(x)

    whole, low = consistency_task(), consistency_task(highest=4.0)
    images = torch.rand(64, 1, 8, 8, generator=step_generator(5))
    batch = Batch(images, torch.zeros(64, dtype=torch.int64))
    highest = []
    for task in (whole, low):
        told.clear()
        task.losses(Watching(), batch, step_generator(6))
        highest.append(float(torch.cat(told).max()))
    assert highest[0] > highest[1]
    assert math.isclose(4 * highest[1], math.log(float(low.grid[low.first])), rel_tol=1e-5)
    assert low.grid[low.first] <= 4.0 < low.grid[low.first - 1]
    assert low.facts()["trained_sigma"] == "up to 2"
    assert "trained_sigma" not in whole.facts()
    with pytest.raises(BadInput, match=r"highest 0\.003 leaves no two nodes"):
        consistency_task(highest=0.003)


def test_the_consistency_target_gets_no_gradient_and_the_loss_does() -> None:
    task = consistency_task()
    network = build_network("unet", RECIPE.network, step_generator(0)).eval()
    batch = Batch(torch.rand(4, 1, 8, 8, generator=step_generator(1)), torch.zeros(4))
    task.losses(network, batch, step_generator(2)).sum().backward()  # type: ignore[no-untyped-call]
    assert network.get_parameter("leave.weight").grad.abs().max() > 0  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


def test_the_exact_consistency_function_has_a_small_distillation_loss() -> None:
    # For N(0, d2) data the trajectory of x at t ends at x ((d2 + e^2) / (d2 + t^2))^.5.
    # Its raw network is linear in c_in x; the loss left is Heun's error, which falls with N.
    class Exact(nn.Module):
        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            t = (4 * noise).exp()[:, None, None, None]
            e, d2, total = 0.002, 0.25, 0.25 + t**2
            skip = d2 / ((t - e) ** 2 + d2)
            out = 0.5 * (t - e) / total**0.5
            target = ((d2 + e**2) / total) ** 0.5 - skip
            scaled: Tensor = torch.where(t > e * 1.001, target / out * total**0.5 * x, 0.0)
            return scaled

    generator = step_generator(3)
    batch = Batch((0.5 * torch.randn(256, 1, 8, 8, generator=generator) + 1) / 2, torch.zeros(256))
    losses = {}
    for nodes in (18, 72):
        task = consistency_task(nodes)
        losses[nodes] = float(task.losses(Exact(), batch, step_generator(4)).mean())
        zero = float(task.losses(OptimalNetwork(), batch, step_generator(4)).mean())
        assert losses[nodes] < 0.2 * zero
    # the local error is of third order in the step: with 4 times the nodes about 1/64, and 1/10
    # leaves room for the coarse grid's higher orders
    assert losses[72] < losses[18] / 10


def test_augmentations_move_and_mirror() -> None:
    image = torch.zeros(200, 1, 5, 5)
    image[:, :, 2, 2] = 1
    moved = shift_images(image, 1, step_generator(0))
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(200))
    assert torch.equal(moved[:, :, 1:4, 1:4].sum(dim=(1, 2, 3)), torch.ones(200))
    assert (moved.sum(dim=0)[0, 1:4, 1:4] > 0).all()
    ramp = torch.arange(4.0).expand(200, 1, 1, 4)
    mirrored = flip_images(ramp, step_generator(0))
    count = int((mirrored[:, 0, 0, 0] == 3).sum())
    assert 65 < count < 135  # binomial(200, 1/2): 35 is 4.9 standard deviations, alpha 1e-6


def test_reflecting_shifts_lose_no_colour() -> None:
    ramp = torch.arange(1.0, 6.0).expand(100, 1, 5, 5)
    plain = shift_images(ramp, 2, step_generator(0))
    mirrored = shift_images(ramp, 2, step_generator(0), reflect=True)
    assert plain.min() == 0
    assert mirrored.min() == 1
    kept = plain != 0
    assert torch.equal(plain[kept], mirrored[kept])


def test_an_epoch_shows_every_image_once_and_two_epochs_show_both_sides() -> None:
    places = [epoch_batch(3, step, 4, 18) for step in range(8)]
    first, second = (torch.cat([p.positions for p in places[k : k + 4]]) for k in (0, 4))
    assert len(first.unique()) == len(second.unique()) == 16
    assert not torch.equal(first, second)
    sides: dict[int, list[bool]] = {}
    for place in places:
        for index, side in zip(place.positions.tolist(), place.mirrored.tolist(), strict=True):
            sides.setdefault(index, []).append(side)
    assert all(set(pair) == {True, False} for pair in sides.values() if len(pair) == 2)
    assert len({pair[0] for pair in sides.values()}) == 2
    with pytest.raises(BadInput, match="larger than the 3 images"):
        epoch_batch(0, 0, 4, 3)


def test_offsets_learn_faster_and_decay_alike(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", bias_rate=8.0, weight_decay=0.1)
    run = trainer(tmp_path, recipe)
    weights, offsets = run.optimizer.param_groups
    assert run.rates == [recipe.learning_rate, 8 * recipe.learning_rate]
    assert weights["lr"] * weights["weight_decay"] == offsets["lr"] * offsets["weight_decay"]
    assert all(parameter.ndim > 1 for parameter in weights["params"])
    assert all(parameter.ndim == 1 for parameter in offsets["params"])


def test_a_checkpoint_from_before_a_setting_existed_resumes(tmp_path: Path) -> None:
    trainer(tmp_path).run(2)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    recipe = json.loads(state["recipe"])
    del recipe["order"], recipe["bias_rate"]
    torch.save({**state, "recipe": json.dumps(recipe)}, path)
    assert trainer(tmp_path).resume()
    with pytest.raises(BadInput, match="another order"):
        trainer(tmp_path, dataclasses.replace(RECIPE, order="epochs")).resume()


@pytest.mark.slow
def test_a_classifier_learns_through_every_option(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        load_recipe("cifar10-classifier"),
        dataset="digits",
        network={"image_channels": 1, "classes": 10, "channels": [16, 32]},
        steps=60, batch=64, warmup=20, learning_rate=0.2, shift=1, flip=False, validate_every=30,
    )  # fmt: skip
    result = train(recipe, out=tmp_path, progress=False)
    (rate,) = result.quality
    assert rate.n == 450
    assert rate.correct > 400  # an untrained network has about 45


def test_rate_factor_warms_up_and_decays() -> None:
    recipe = dataclasses.replace(RECIPE, steps=100, warmup=10)
    assert rate_factor(recipe, 0) == pytest.approx(0.1)
    assert rate_factor(recipe, 50) == pytest.approx(0.5)
    assert rate_factor(recipe, 100) == pytest.approx(0.0)
    assert rate_factor(dataclasses.replace(recipe, decay="constant"), 50) == 1.0
    linear = dataclasses.replace(recipe, decay="linear")
    assert rate_factor(linear, 10) == pytest.approx(1.0)
    assert rate_factor(linear, 55) == pytest.approx(0.5)
    assert rate_factor(linear, 100) == 0.0


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_of_the_package_is_readable_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    if recipe.teacher is None:
        build_network(recipe.architecture, recipe.network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("task = 'edn'", "task 'edn' is not known; did you mean edm"),
        ("stepz = 3", "'stepz' of r.toml is unknown"),
        ("steps = 0", "steps 0 is not a whole number of 1 or more"),
        ("learning_rate = -1.0", "learning rate -1 is not 1e-12 or more"),
        ("task = 'classifier'\nteacher = 'digits-edm'", "which need one; mend the recipe"),
        ("seed = -1", "seed -1 is not a whole number of 0 or more"),
        ("momentum = 1.0", "momentum 1 is not 0 or more and below 1"),
        ("order = 'sorted'", "order 'sorted' is not known; known: random, epochs"),
        ("= =", "is not TOML"),
        ("[loss]\nsigma_dat = 1", "loss setting 'sigma_dat' is unknown"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "r.toml"
    values = {
        "name": "'x'",
        "about": "'x'",
        "task": "'edm'",
        "dataset": "'digits'",
        "architecture": "'unet'",
        "steps": "1",
        "batch": "1",
        "seed": "0",
    }
    key = change.split("=")[0].strip()
    lines = [f"{name} = {value}" for name, value in values.items() if name != key]
    path.write_text("\n".join([*lines, change]) + "\n")
    with pytest.raises(BadInput, match=message):
        train(path, out=tmp_path, progress=False)


def test_unknown_and_incomplete_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean digits-edm"):
        load_recipe("digits-ed")
    with pytest.raises(BadInput, match="is missing"):
        load_recipe(tmp_path / "none.toml")
    path = tmp_path / "r.toml"
    path.write_text("name = 'x'\n")
    with pytest.raises(BadInput, match="is incomplete"):
        load_recipe(path)


def test_a_teacher_must_be_a_denoiser(tmp_path: Path) -> None:
    recipe = dataclasses.replace(load_recipe("digits-cm"), teacher="digits-classifier", steps=1)
    with pytest.raises(BadInput, match="is not a denoiser"):
        train(recipe, out=tmp_path, progress=False)


def test_the_whole_path_from_recipe_to_card(tmp_path: Path) -> None:
    result = train(dataclasses.replace(RECIPE, steps=2), out=tmp_path, progress=False)
    network, metadata = load_network(result.weights)
    assert metadata["task"] == "edm"
    assert metadata["images_seen"] == result.images_seen == 16
    assert metadata["recipe"]["seed"] == 1
    assert [rate["n"] for rate in metadata["quality"]] == [450] * 6
    assert network(torch.zeros(1, 1, 8, 8), torch.zeros(1)).shape == (1, 1, 8, 8)
    card = (tmp_path / "tiny.md").read_text()
    assert "seed 1" in card
    assert "n=450, 95 % interval" in card
    assert "2 steps of 8, 16 images seen" in card


@pytest.mark.slow
def test_a_run_may_stop_early_say_so_and_go_on(tmp_path: Path) -> None:
    whole = train(RECIPE, out=tmp_path / "whole", progress=False)
    early = train(RECIPE, out=tmp_path / "parts", until=5, progress=False)
    card = (tmp_path / "parts" / "tiny.md").read_text()
    assert "5 of 12 steps (unfinished) of 8, 40 images seen" in card
    assert early.steps == load_network(early.weights).metadata["steps"] == 5
    with pytest.warns(UserWarning, match="step 1 has passed: the weights are those of step 5"):
        assert train(RECIPE, out=tmp_path / "parts", until=1, progress=False).steps == 5
    with pytest.raises(BadInput, match="steps 4 are fewer than the 5 that the training in"):
        train(RECIPE, out=tmp_path / "parts", steps=4, progress=False)
    late = train(RECIPE, out=tmp_path / "parts", progress=False)
    one, two = load_state(whole.weights), load_state(late.weights)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_exported_weights_go_on_where_the_checkpoint_is_gone(tmp_path: Path) -> None:
    early = train(RECIPE, out=tmp_path / "early", until=5, progress=False)
    start = load_state(early.weights)
    at_once = train(RECIPE, out=tmp_path / "at-once", weights=str(early.weights), until=5)
    assert all(
        torch.equal(value, load_state(at_once.weights)[name]) for name, value in start.items()
    )
    late = train(RECIPE, out=tmp_path / "late", weights=str(early.weights), progress=False)
    assert late.steps == 12
    assert "12 steps of 8, 96 images seen" in (tmp_path / "late" / "tiny.md").read_text()
    assert "optimizer_restarted_at_step: 5" in (tmp_path / "late" / "tiny.md").read_text()
    # A checkpoint that is there wins: the same command goes on.
    train(RECIPE, out=tmp_path / "two", weights=str(early.weights), until=8, progress=False)
    with pytest.warns(UserWarning, match="has a checkpoint, at step 8: .* was not read"):
        again = train(RECIPE, out=tmp_path / "two", weights=str(early.weights), progress=False)
    one, two = load_state(late.weights), load_state(again.weights)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert load_network(again.weights).metadata["optimizer_restarted_at_step"] == 5
    other = dataclasses.replace(RECIPE, batch=4)
    with pytest.raises(BadInput, match=r"weights .*early.* another batch \(8\); give"):
        train(other, out=tmp_path / "other", weights=str(early.weights), progress=False)


def test_the_optimiser_warms_up_where_it_starts_anew() -> None:
    recipe = dataclasses.replace(RECIPE, warmup=4, decay="constant")
    assert [rate_factor(recipe, step, 5) for step in range(5, 10)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.slow
def test_the_card_shows_the_validation_curve(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=30, validate_every=1)
    train(recipe, out=tmp_path, progress=False)
    log = (tmp_path / "log.csv").read_text().splitlines()
    card = (tmp_path / "tiny.md").read_text().splitlines()
    start = card.index("| images seen | training loss | validation_loss |")
    rows = [line.strip("| ").split(" | ") for line in card[start + 2 :]]
    assert len(rows) == 12
    assert rows[-1][0] == "240"
    for images, loss, metric in rows:
        step, true_loss, _, true_metric = log[int(images) // 8].split(",")
        assert int(step) * 8 == int(images)
        assert float(loss) == pytest.approx(float(true_loss), rel=1e-3)
        assert float(metric) == pytest.approx(float(true_metric), rel=1e-3)
