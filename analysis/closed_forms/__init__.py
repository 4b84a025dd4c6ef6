"""Processes whose answer is known in closed form: Gaussian fields and two points."""
