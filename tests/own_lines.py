"""Quick lines of the studies that take a purifier, for a user's own purifier and images."""

LINES = {
    "cr": "--eps 0.15 --perturbations 1",
    "snr": "--eps 0.15 --perturbations 2 --configurations 2",
    "distances": "--perturb uniform:0.1",
    "survival": "--top 0.3 --bisections 1 --steps 1",
    "gradients": "--draws 2 --reference 2",
    "certify": "--sigma 0.25 -N 100 --selection 10",
    "randomness": "--eps 0.15 --steps 1 --eot 2 --draws 2",
    "measure distance": "",
    "steps": "--eps 0.15 --perturbations 1 --probes 1",
    "transport": "--sigma 0.25",
    "predict": "--eps 0.15 --bisections 1 --steps 1 --perturbations 1",
}
JUDGED = ("survival", "gradients", "certify", "randomness", "predict", "distances", "transport")
