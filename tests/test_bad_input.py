"""Bad input ends in one line that names the value, the rule and the fix, with exit code 2."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advpure.analysis import compression_rate, ssim
from advpure.attacks import ZeroGradientWarning, pgd, transfer
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_classifier, load_defense, load_purifier
from advpure.models import model_path
from advpure.runs.records import RecordStore

Refused = Callable[..., str]

ATTACK: list[tuple[str, list[str]]] = [
    ("--defense ddmp", ["defense 'ddmp'", "is not known", "did you mean ddpm"]),
    ("-d whole.pt", ["defense 'whole.pt' is a file", "file.py:make, code that makes it"]),
    ("-d mine.py", ["defense 'mine.py' is a file, and no name; write mine.py:NAME, code"]),
    ("--attack autoattak:standard", ["did you mean autoattack:standard?"]),
    ("--policy eot:1", ["is the mean of one"]),
    ("--defense zzz", ["defense 'zzz'", "is not known", "known: none, ddpm"]),
    ("--eps 8", ["epsilon 8", "ambiguous", "8/255", "8.0"]),
    ("--eps 1e-9", ["epsilon 1e-09", "below 1.2e-07, the spacing of float32", "float64"]),
    ("--sigma 1e-9", ["sigma 1e-09", "outside what the denoiser digits-cm covers", "0.001 to 40"]),
    ("-d ddpm --sigma 1e-9", ["sigma 1e-09", "the denoiser digits-edm covers", "0.001 to 40"]),
    ("--attack bpda --gradient full", ["gradient 'full'", "contradicts attack bpda", "leave one"]),
    ("--attack bpda --attack-option gradient=full", ["gradient 'full'", "contradicts", "use pgd"]),
    (
        "--fix-random --transfer-from 0",
        ["transfer from seed 0", "the seed that decides", "another"],
    ),
    ("--outputs softmax", ["outputs 'softmax'", "is not known", "logits, probabilities, labels"]),
    ("--eps 0", ["epsilon 0", "is not positive", "8/255"]),
    ("--eps -0.1", ["epsilon -0.1", "is not positive", "8/255"]),
    ("--eps nan", ["epsilon nan", "is not finite", "8/255"]),
    ("--eps inf", ["epsilon inf", "is not finite", "8/255"]),
    ("--eps abc", ["epsilon 'abc'", "is not a number", "8/255"]),
    ("--eps 8/0", ["epsilon '8/0'", "is not a number", "8/255"]),
    ("--eps 8 --norm l2", ["epsilon 8", "ambiguous", "8/255", "8.0"]),
    ("--norm l1", ["norm l1", "is not covered", "use linf or l2"]),
    ("--norm l2", ["norm l2", "has no default radius on digits", "--eps"]),
    ("--dataset digit", ["data set 'digit'", "is not known", "did you mean digits"]),
    ("--subset tets", ["subset 'tets'", "is not understood", "did you mean 'test'"]),
    ("--subset 440:460", ["subset '440:460'", "has 450", "stay within 0:450"]),
    ("-n 451", ["n 451", "does not fit", "use 1 to 450"]),
    ("-n -1", ["n -1", "does not fit", "use 1 to 450"]),
    ("-n x", ["'x'", "integer", "--help"]),
    ("--attack pdg", ["attack 'pdg'", "is not known", "did you mean pgd"]),
    ("-o foo=1", ["option 'foo' of cm", "is not known", "known: "]),
    ("-d ddpm -o clipx0=1", ["option 'clipx0' of ddpm", "is not known", "did you mean clip_x0"]),
    ("-d ddpm -o clip_x0=perhaps", ["clip_x0 'perhaps'", "use true or false"]),
    ("-o clip_x0", ["option 'clip_x0'", "is not KEY=VALUE", "write"]),
    ("-o xi=1", ["option 'xi' of cm", "is not known", "known: "]),
    ("--t 9 -o t=5", ["t 9 beside option t=5", "sets one strength twice", "leave one"]),
    ("--attack-option foo=1", ["option 'foo' of pgd", "is not known", "known: "]),
    ("--attack-option eps=0.9", ["attack option eps=0.9", "threat model", "use --eps"]),
    ("--steps 2 --attack-option steps=3", ["steps=3", "a second time", "keep --steps 2"]),
    ("--attack-option targeted=true", ["targeted", "no classes to reach", "attacks.pgd"]),
    ("--loss mse", ["loss 'mse'", "is not known", "ce, margin, dlr"]),
    ("--gradient exact", ["gradient 'exact'", "is not known", "full, checkpoint, bpda"]),
    ("-d onestep-edm --gradient surrogate", ["'surrogate'", "has no shorter chain", "bpda"]),
    ("--policy often", ["policy 'often'", "is not known", "single, eot or majority"]),
    ("--policy eot:x", ["policy 'eot:x'", "has no number of draws", "eot:10"]),
    ("--policy eot:0", ["draws 0", "is not a whole number from 1 to 1000000", "use 1"]),
    ("--t 5 --sigma 0.2", ["t 5 and sigma 0.2", "are two strengths", "give one"]),
    ("-d densepure --t 5", ["10 reverse steps", "do not fit 4 indices", "use -o steps=4 or fewer"]),
    ("-d ddpm --t 0", ["t 0", "is outside the linear schedule", "use 1 .. 1000"]),
    ("-d ddpm --t 1001", ["t 1001", "is outside the linear schedule", "use 1 .. 1000"]),
    ("-d onestep-edm --sigma 80", ["sigma 80.0", "is outside (0, 40]", "use"]),
    ("-d onestep-edm --sigma nan", ["sigma nan", "is not finite", "write"]),
    ("-d none --t 5", ["t 5", "means nothing to none", "leave out t"]),
    ("--seed -1", ["seed -1", "is not a whole number from 0", "use 0"]),
    ("--seed 4294967296", ["seed 4294967296", "does not fit", "use 0 .. 2**32 - 1"]),
    ("--seed one", ["'one'", "integer", "--help"]),
    ("--scheme md5", ["scheme 'md5'", "is not known", "known: hash, counter"]),
    ("--attack-seed -1", ["seed -1", "is not a whole number", "use 0"]),
    ("--steps 0", ["steps 0", "is not a whole number from 1 to 1000000", "use 1"]),
    ("--step-size 0", ["step_size 0", "is not above 0"]),
    ("--step-size 5", ["step size 5", "is ambiguous", "write 5/255"]),
    ("--step-size 1e-9", ["step size 1e-09", "below 1.2e-07, the spacing of float32", "float64"]),
    ("-d pf-ode -o nodes=100000000", ["nodes 100000000", "from 1 to 100000"]),
    ("-d dpm -o evaluations=100000000", ["evaluations 100000000", "from 1 to 100000"]),
    ("-d ddpm -o schedule_steps=100000000", ["schedule_steps 100000000", "from 1 to 100000"]),
    ("-d none --draws 3", ["3 draws", "mean nothing to none, which draws no noise", "--draws"]),
    ("-d none --policy eot:3", ["policy eot:3", "means nothing to none", "leave it out"]),
    (
        "-d none --fix-random --transfer-from 1",
        ["transfer from seed 1", "means nothing to none", "leave out --transfer-from"],
    ),
    ("--policy majority:100000000", ["draws 100000000", "from 1 to 1000000"]),
    ("-o sigma=2_5", ["sigma '2_5'", "is not written in digits", "write 25"]),
    ("--weights iddpm-cifar10:", ["iddpm-cifar10:", "name no file", "write iddpm-cifar10:FILE"]),
    ("--weights foo:a.pt", ["foo:a.pt", "is missing", "no official checkpoint is called 'foo'"]),
    ("--weights edm-cifar10-uncond-vp:a.pkl@foo", ["a.pkl@foo", "is missing", "@raw, @ema"]),
    (
        "-d ddpm --t 5 -o surrogate_stride=100",
        ["surrogate_stride 100", "is longer than the chain, which goes down 5", "use 1 .. 5"],
    ),
    ("-d ddim --t 5 -o stride=6", ["stride 6", "is longer than the chain", "use 1 .. 5"]),
    ("-d reverse -o stride=0", ["stride 0", "goes nowhere", "use 1 or more"]),
    (
        "-d densepure -o surrogate_steps=11",
        ["surrogate_steps 11", "are more than the 10 of the chain", "use 1 .. 10"],
    ),
    ("-d densepure -o surrogate_steps=0", ["surrogate_steps 0", "1 or more", "use 1"]),
    (
        "-d vpsde --t 5 -o surrogate_dt=0.05",
        ["surrogate_dt 0.05", "is longer than the whole integration, 0.005", "a larger t"],
    ),
    (
        "--attack-option randomness=fresh --fix-random",
        ["randomness=fresh", "contradicts the fixed randomness of the whole run", "leave it out"],
    ),
    (
        "--attack-option randomness=fixed",
        ["randomness=fixed", "contradicts the fresh randomness of the whole run", "leave it out"],
    ),
    (
        "--attack-option eot_mode=logits --steps 1 --fix-random",
        ["eot_mode logits", "averages nothing of one pass", "use eot 2 or more"],
    ),
    ("-a uniform-noise --gradient bpda", ["gradient 'bpda'", "takes no gradient", "leave it out"]),
    ("-a square --gradient full", ["gradient 'full'", "takes no gradient", "leave it out"]),
    ("-d none --attack pgd --eot 3", ["eot 3", "means nothing to none", "leave it out"]),
    (
        "--attack square --eot 3 --fix-random",
        ["eot 3", "means nothing to attack square under fixed randomness", "leave it out"],
    ),
    ("-a foolbox:LinfPGD --steps 0", ["steps 0 of foolbox:LinfPGD", "1 or more", "use 1"]),
    (
        "-a foolbox:LinfPGD --attack-option rel_stepsize=-1",
        ["rel_stepsize -1", "is not 0 or more", "choose"],
    ),
    ("-d densepure -o steps=0", ["steps 0", "whole number of 1 or more", "use 1"]),
    ("-d pf-ode --sigma 0.001", ["noise 0.002", "is not above 0.002", "use more noise"]),
    ("--eot 0", ["eot 0", "is not a whole number from 1 to 1000000", "use 1"]),
    ("--iterate first", ["iterate 'first'", "is not known", "last, best"]),
    ("--draws 0", ["draws 0", "is not a whole number from 1 to 1000000", "use 1"]),
    ("--draws 99999999999999", ["draws 99999999999999", "from 1 to 1000000"]),
    ("--t 1_0", ["number '1_0'", "is not written in digits", "write 10"]),
    ("--eps 1_0/255", ["epsilon '1_0/255'", "is not a number", "8/255"]),
    ("--fix-random --draws 5", ["5 draws", "do not fit fixed randomness", "--draws"]),
    ("--transfer-from 3", ["a source seed", "needs fixed randomness", "--fix-random"]),
    (
        "--fix-random --transfer-from -3",
        ["source seed -3", "is not a whole number from 0", "use 0"],
    ),
    ("--batch-size 0", ["batch size 0", "holds no image", "use 1 or more"]),
    ("--tile -1", ["tile -1", "holds no image", "use 1 or more"]),
    ("--device gpu", ["device 'gpu'", "is not known", "cpu, cuda, cuda:1 or mps"]),
    ("--device cuda:x", ["device 'cuda:x'", "is not known", "cpu, cuda, cuda:1 or mps"]),
    ("--device cuda:99", ["device 'cuda:99'", " is ", "; "]),
    ("--weights missing.safetensors", ["missing.safetensors", "is missing", "check the path"]),
    ("--weights nothere", ["model 'nothere'", "is not shipped", "digits-edm"]),
    ("--weights digits-classifier", ["'digits-classifier'", "is no denoiser", "digits-edm"]),
    ("--epss 3", ["--epss", "--eps", "--help"]),
    ("extra", ["extra", "--help"]),
]

OTHERS: list[tuple[str, list[str]]] = [
    ("cr --eps 8", ["epsilon 8", "ambiguous", "8/255"]),
    ("cr --eps 0", ["epsilon 0", "is not positive", "8/255"]),
    ("cr --eps 8/255,", ["epsilons '8/255,'", "have an empty entry", "8/255"]),
    ("cr --eps 0.1,0.1", ["0.1,0.1", "repeat a value", "once"]),
    ("cr --eps 1e-9", ["epsilon 1e-09", "is below", "float64"]),
    ("cr --sigma 1e-9", ["sigma 1e-09", "outside what the denoiser digits-cm covers"]),
    ("measure distance --sigma 1e-9", ["sigma 1e-09", "outside what the denoiser digits-cm"]),
    ("cr --distribution cauchy", ["distribution 'cauchy'", "is not known", "uniform"]),
    ("cr --perturbations 0", ["perturbations 0", "is not a whole number of 1 or more", "use 1"]),
    ("cr --seeds a", ["seed 'a'", "is not a whole number", "0,1,2"]),
    ("cr --seeds 0,0", ["seeds 0,0", "repeat a value", "once"]),
    ("cr --batch-size 0", ["batch size 0", "holds no image", "use 1 or more"]),
    ("cr --defense ddmp", ["defense 'ddmp'", "is not known", "did you mean ddpm"]),
    ("cr --device gpu", ["device 'gpu'", "is not known", "cpu, cuda"]),
    ("cr -o tile=3", ["option 'tile' of cm", "is not known", "known: "]),
    ("cr -n 2 --perturbations 1 --plot x.doc", ["x.doc", "is no picture", ".png"]),
    ("measure distance -o tile=3", ["option 'tile' of cm", "is not known", "known: "]),
    ("measure distance -n 2 --batch-size 0", ["batch size 0", "holds no image", "1 or more"]),
    ("survival -n 2 --eps 0.1,0.1", ["epsilons 0.1,0.1", "repeat a value", "once"]),
    ("survival -n 2 --cross-check fmn,fmn", ["fmn,fmn", "repeat a value", "once"]),
    ("distances -n 2 --metrics ssim,ssim", ["metrics ssim,ssim", "repeat a name", "once"]),
    ("randomness -d ddpm --draws 99999999999999", ["draws 99999999999999", "to 1000000"]),
    ("transport --multiples 0", ["multiple 0", "is not above 0", "write 1,1.5,2"]),
    ("transport --multiples 1,1", ["multiples 1,1", "repeat a value", "once"]),
    ("transport --draws 99999999999999", ["399,999,999,999,996 draws", "more than", "fewer"]),
    ("gradients --draws 99999999999999", ["draws 99999999999999", "to 1048576"]),
    ("reproduce --set n=3", ["--set n=3", "without an experiment", "003:table-2"]),
    ("reproduce --plot x.png", ["--plot x.png", "without an experiment", "003:table-2"]),
    ("reproduce 003:table-2 --set n", ["option 'n'", "is not KEY=VALUE", "write --set n=3"]),
    ("steps --neighbours 1 --components 2", ["1 neighbours", "use 2 neighbours or more"]),
    ("measure distance --device gpu", ["device 'gpu'", "is not known", "cpu, cuda"]),
    ("measure distance -d ddpm --t 9 -o t=5", ["t 9 beside option t=5", "one strength twice"]),
    ("attck", ["attck", "attack", "--help"]),
    ("--foo", ["--foo", "--help"]),
    ("check-grad -d cm -d cm", ["defense cm", "is given twice", "name it once"]),
    ("check-grad -d none --t 5", ["t 5", "means nothing to none", "leave it out"]),
    ("check-grad -d none --sigma 0.2", ["sigma 0.2", "means nothing to none", "leave it out"]),
    (
        "check-grad -d none --weights digits-edm",
        ["weights 'digits-edm'", "means nothing to none", "leave it out"],
    ),
    (
        "certify -n 2 -N 40 --selection 10 --shard 5/5",
        ["shard 5/5", "more parts than 4 blocks of samples of 2 images", "use at most 4 shards"],
    ),
    (
        "certify -n 2 -p anytime --radii 0 --shard 3/3",
        ["shard 3/3", "is of more parts than 2 images", "use at most 2 shards"],
    ),
    (
        "certify -n 2 -N 100 -p cascade --sigma 0.25",
        ["a cascade of one noise level", "is the fixed procedure", "give several sigmas"],
    ),
    (
        "attack --denoiser torch.nn:Identity -n 2 --dry-run",
        ["denoiser Identity given a state", "fails (TypeError", "let it take both"],
    ),
    ("cr --seeds 0,-1", ["seed '-1'", "is not a whole number of 0 or more", "0,1,2"]),
    ("attack -n 2 --plot .", ["file .", "is no picture", ".svg"]),
    ("two-point --noise 1e-5", ["noise 1e-05", "is not above 0.002", "use more noise"]),
    (
        "field --dimension 3 --intrinsic-dimension 1 --step 1e50 --steps 3",
        ["3 steps of size 1e+50", "leave the range of numbers", "fewer steps"],
    ),
    (
        "transport -n 2 --grid a.png --plot ./a.png",
        ["--grid a.png", "is the file of --plot", "another"],
    ),
    (
        "boost --dataset digits -n 2 --plot a.png --grid ./a.png",
        ["--grid ./a.png", "is the file of --plot", "another"],
    ),
    ("survival -n 2 --eot 3", ["eot 3", "means nothing to none", "leave it out"]),
    ("certify -n 2 --log a.csv", ["log a.csv", "is written with tabs, not as .csv", "a.tsv"]),
    ("certify -n 2 --log .", ["log '.'", "names no file", "write cm.tsv"]),
    ("check-grad --foo", ["--foo", "see advpure check-grad --help"]),
    ("export nothere --check --table x", ["--table x", "means nothing to --check", "--to FILE"]),
    ("reproduce --jobs 3", ["--jobs 3", "without an experiment", "003:table-2"]),
    ("reproduce --size full", ["--size full", "without an experiment", "003:table-2"]),
    ("certify -n 2 --selection 10000000000", ["selection 10000000000", "to 1000000"]),
    (
        "distances -n 2 --perturb none --metrics ssim --policy eot:3",
        ["policy 'eot:3'", "means nothing without an attack among the perturbations"],
    ),
    (
        "distances -n 2 --perturb none --metrics ssim --normalize 0.5/0.5",
        ["normalize '0.5/0.5'", "nothing without an attack or a metric that asks a classifier"],
    ),
    ("train digits-classifier --out setup.cfg", ["folder setup.cfg", "is a file", "another"]),
    ("export nothere --to x.csv", ["nothere", "is no run folder", "records.sqlite"]),
    ("export nothere", ["--to", "--help"]),
    ("models digits-cmm", ["'digits-cmm'", "is not "]),
    ("train digits-x", ["recipe 'digits-x'", "is not known", "did you mean"]),
    ("train digits-cm --steps 0", ["steps 0", "is not a whole number of 1 or more", "1 or more"]),
    ("train digits-cm --save-seconds -1", ["-1", "0", "--help"]),
    ("train digits-cm --device gpu", ["device 'gpu'", "is not known", "cpu, cuda"]),
]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Return a runner that checks the form of a refusal and returns its line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        capsys.readouterr()
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("advpure: ")
        assert "Traceback" not in err
        return err

    return call


@pytest.mark.parametrize(("line", "words"), ATTACK, ids=[line for line, _ in ATTACK])
def test_attack_refuses(refused: Refused, tmp_path: Path, line: str, words: list[str]) -> None:
    told = refused("attack", *line.split())
    assert [word for word in words if word not in told] == [], told
    if "--batch-size" not in line and "surrogate" not in line:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("line", "words"), OTHERS, ids=[line for line, _ in OTHERS])
def test_other_verbs_refuse(refused: Refused, tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / "setup.cfg").write_text("mine")
    told = refused(*line.split())
    assert [word for word in words if word not in told] == [], told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("verb", ["attack", "cr", "train"])
def test_cuda_where_there_is_none(refused: Refused, verb: str) -> None:
    more = ["digits-cm"] if verb == "train" else []
    told = refused(verb, *more, "--device", "cuda")
    assert told == "advpure: device 'cuda' is not available here; use --device cpu\n"


class Trap:
    """A pickle that makes a folder when it is loaded the naive way."""

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Ask the unpickler to run code."""
        return os.mkdir, (str(self.folder),)


def damaged_files(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Write every kind of file that is no network of ours."""
    good = model_path("digits-edm").read_bytes()
    noise = torch.randint(0, 255, (999,), generator=torch.Generator().manual_seed(0)).tolist()
    bytes_of = {
        "garbage": bytes(noise), "empty": b"", "cut": good[: len(good) // 2], "head": good[:100],
        "flipped": good[:20] + b"\xff" + good[21:], "text": b"hello, these are no weights\n",
        "pickle": pickle.dumps({"weight": Trap(folder / "trapped")}),
    }  # fmt: skip
    files = {}
    for name, content in bytes_of.items():
        files[name] = folder / f"{name}.safetensors"
        files[name].write_bytes(content)
    files["foreign"] = folder / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, files["foreign"])
    files["odd"] = folder / "odd.safetensors"
    header = {"format": 1, "architecture": "vgg", "config": {}, "metadata": {}}
    save_file({"w": torch.zeros(3)}, files["odd"], {"advpure": json.dumps(header)})
    torch.save({"weight": Trap(folder / "trapped")}, folder / "trap.pt")
    files["torch"] = folder / "trap.pt"
    words = {name: ["weights file", "obtain it again"] for name in files}
    words["foreign"] = ["has no advpure header", "advpure train"]
    words["odd"] = ["'vgg'", "is not known"]
    return {name: (path, words[name]) for name, path in files.items()}


@pytest.mark.parametrize("option", ["--weights", "--classifier"])
def test_no_bad_weights_file_gets_in_and_no_pickle_runs(
    refused: Refused, tmp_path: Path, option: str
) -> None:
    for name, (path, words) in damaged_files(tmp_path).items():
        told = refused("attack", option, str(path))
        assert [word for word in words if word not in told] == [], (name, told)
    assert not (tmp_path / "trapped").exists()
    assert not (tmp_path / "runs").exists()


def test_the_trap_would_snap(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "trapped")))
    assert (tmp_path / "trapped").is_dir()


@pytest.mark.slow
def test_out_that_is_no_folder_of_this_run(refused: Refused, tmp_path: Path) -> None:
    small = ("attack", "--fix-random", "-n", "2", "--steps", "1", "--out")
    (tmp_path / "file").write_text("mine")
    assert "file cannot be written" in refused(*small, "file")
    assert "file/run cannot be written" in refused(*small, "file/run")
    assert (tmp_path / "file").read_text() == "mine"
    assert run([*small, "run"]) == 0
    before = (tmp_path / "run" / "records.sqlite").read_bytes()
    told = refused(*small, "run", "--eps", "0.1")
    assert "0.1 differs from 0.15 of the run in run; choose another --out" in told
    assert "choose another --out" in refused("cr", "--out", "run")
    assert (tmp_path / "run" / "records.sqlite").read_bytes() == before
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "records.sqlite").write_bytes(b"no database" * 99)
    assert "is not a readable database" in refused(*small, "broken")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from advpure.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["attack", "cr"])
def test_a_full_disk_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    job = {
        "attack": ["attack", "-d", "none", "--fix-random", "--steps", "1", "-n", "0"],
        "cr": ["cr", "-d", "none", "-n", "0", "--perturbations", "4"],
    }[verb]
    job += ["--batch-size", "16", "--out", "mine"]
    command = [sys.executable, "-c", LIMITED, str(120 * 1024), *job]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "advpure: no room left to write mine/records.sqlite; everything before is kept: "
        "free space and run it again\n"
    )
    with RecordStore.read(tmp_path / "mine") as store:
        table = store.schemas[0].table
        kept = store.rows(table)
    assert kept
    monkeypatch.chdir(tmp_path)
    assert run(job) == 0
    with RecordStore.read(tmp_path / "mine") as store:
        rows = store.rows(table)
    assert len(rows) == {"attack": 450 * 3, "cr": 450 * 4}[verb]
    assert [row for row in rows if row in kept] == kept


def test_images_that_are_none() -> None:
    defense = load_defense("cm", xi=RandomnessConfig(0))
    images, labels, ids = load_images(n=3)
    defense.bind(ids)
    cases: list[tuple[Tensor, str]] = [
        (images * 255, r"images with values in \[0, 255\] leave \[0, 1\]; divide by 255"),
        (images * 2 - 1, r"leave \[0, 1\]; map them with \(x \+ 1\) / 2"),
        (images.where(images < 0.5, torch.nan), "remove the NaN"),
        (images[0], r"images of shape \(1, 8, 8\) are not \[B, C, H, W\]"),
        (images.long(), "images of dtype torch.int64 are not floating point"),
        (images[:2], "3 sample ids do not match a batch of 2 images"),
    ]
    for wrong, words in cases:
        with pytest.raises(BadInput, match=words):
            defense(wrong)
        with pytest.raises(BadInput, match=words):
            pgd(defense, wrong, labels[: len(wrong)], eps=0.1, steps=1)
    for bad_labels, words in (
        (labels[:2], "do not match 3 images"),
        (labels.float(), "are not class indices"),
        (labels - 9, "is negative"),
        (labels + 9, "is outside the 10 classes"),
    ):
        with pytest.raises(BadInput, match=words):
            pgd(defense, images, bad_labels, eps=0.1, steps=1)


class Bent(nn.Module):
    """A classifier with something done to its answer."""

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        """Load the classifier."""
        super().__init__()
        self.inner, self.bend = load_classifier("digits"), bend

    def forward(self, x: Tensor) -> Tensor:
        """Return the bent answer."""
        return self.bend(self.inner(x))


def attack_bent(bend: Callable[[Tensor], Tensor]) -> Any:
    defense = load_defense("cm", xi=RandomnessConfig(0), classifier=Bent(bend))
    images, labels, ids = load_images(n=3)
    return pgd(defense, images, labels, ids=ids, eps=0.1, steps=2)


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (lambda y: y.softmax(1), "look like probabilities .* return the logits"),
        (lambda y: y * torch.nan, "answers with NaN or infinite values; mend it"),
        (lambda y: y / 0, "answers with NaN or infinite values; mend it"),
        (lambda y: y * 1j, "model output of dtype complex64 is not floating point; return real"),
        (lambda y: y[:, 0], r"model output of shape .* is not \[\d+, classes\]; return logits"),
    ],
    ids=["probabilities", "nan", "infinite", "complex", "one-dimensional"],
)
def test_answers_that_are_no_logits(bend: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        attack_bent(bend)


def test_zero_gradients_are_a_warning_and_a_flag() -> None:
    with pytest.warns(ZeroGradientWarning, match="the attack cannot see the model"):
        result = attack_bent(torch.Tensor.detach)
    assert result.zero_gradient.tolist() == [True, True, True]
    assert not attack_bent(lambda y: y).zero_gradient.any()


def _none(*_: Any, **__: Any) -> Any:
    return None


def _misused() -> list[tuple[Callable[[], object], str]]:
    images, labels, ids = load_images("digits", n=2)
    defense = load_defense("cm", "digits", xi=RandomnessConfig(0))
    source = RandomnessConfig(1)
    denoiser = defense.purifier.denoiser
    return [
        (
            lambda: transfer(_none, defense, images, labels, source_xi=source, ids=ids),
            "what the attack returned, None of type NoneType cannot be used",
        ),
        (
            lambda: load_purifier("cm", "digits", denoiser=denoiser, weights="digits-cm"),
            "weights digits-cm and a denoiser exclude each other",
        ),
        (lambda: ssim(images * 255, images * 255), r"leave \[0, 1\]; divide by 255"),
        (lambda: ssim(images * 2 - 1, images), r"leave \[0, 1\]; map them with"),
        (
            lambda: compression_rate(lambda x: x / 4, images, images * 255, ids=ids),
            "a perturbation of 255 is larger than 1",
        ),
    ]


@pytest.mark.parametrize("case", range(5))
def test_calls_that_contradict_themselves_are_refused(case: int) -> None:
    action, words = _misused()[case]
    with pytest.raises(BadInput, match=words):
        action()
