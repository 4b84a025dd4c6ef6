"""Quick lines of every verb, for tests that run them all."""

DIGITS = "--dataset digits -n 2"
LINES = {
    "attack": [
        f"{DIGITS} --fix-random --steps 1 --out attacked",
        f"{DIGITS} --fix-random --steps 1 --seed 1 --out again",
    ],
    "cr": [
        f"{DIGITS} --perturbations 1 --plot cr.png",
        *(f"{DIGITS} --perturbations 1 --shard {i}/2 --out part{i}" for i in (1, 2)),
    ],
    "snr": [f"{DIGITS} --perturbations 2 --configurations 2"],
    "distances": [f"{DIGITS} -d cm --perturb uniform:0.1"],
    "survival": [f"{DIGITS} --bisections 1 --steps 1 --cross-check fmn"],
    "predict": [f"{DIGITS} -d cm --bisections 1 --steps 1 --perturbations 1"],
    "gradients": [f"{DIGITS} --draws 2 --reference 2"],
    "certify": [f"{DIGITS} -d cm --sigma 0.25 -N 100 --selection 10 --out certified"],
    "certified-accuracy": ["certified --radii 0,0.25"],
    "randomness": [f"{DIGITS} --steps 1 --eot 2 --draws 2"],
    "timesteps": [f"{DIGITS} -d reverse --times 1,5 --perturbations 1"],
    "measure": [f"distance {DIGITS}"],
    "steps": [f"{DIGITS} -d ddim --t 3 --perturbations 1 --probes 1"],
    "representation": [f"{DIGITS} --levels 2 --perturbations 1"],
    "field": ["--dimension 8 --intrinsic-dimension 2 --draws 2"],
    "transport": [f"{DIGITS} -d cm --sigma 0.25"],
    "two-point": ["--noise 0.5 --draws 10 --json"],
    "generate": [f"{DIGITS} --steps 1,2 --save made.npz"],
    "boost": [
        f"{DIGITS} -b digits-gaussian-050 --loss ce --steps 1 --reference train/first-20 "
        "--weights digits-cm"
    ],
    "check-grad": ["--dataset digits -d cm -n 1 --directions 1"],
    "train": ["digits-classifier --steps 1 --out trained"],
    "models": ["", "list --json", "info digits-cm"],
    "data": [""],
    "sweep": ["law.yaml --jobs 1 --quiet"],
    "reproduce": ["", "000:theorem-3-3 --set n=2 --jobs 1 --quiet"],
    "plot": ["attacked --to again.svg"],
    "export": ["attacked --to rows.csv"],
    "compare": ["attacked again"],
    "merge": ["part1 part2 --to whole"],
    "verify": ["attacked"],
    "claims": ["--flaw EOT --plot claims.png"],
    "audit": [
        "attacked --only silent-success",
        "--dataset digits -n 2 --defense none --fix-random --budget 60 --passes 20",
    ],
    "report": ["attacked --to page.html", "attacked --as leaderboard --to board.html"],
}
"""Lines of every verb, in an order in which later ones find the runs of earlier ones."""

LAW = """\
verb: cr
base: {dataset: digits, n: 2, defense: none, perturbations: 1}
grid: {eps: [0.1, 0.2]}
"""
"""The sweep file of those lines."""
