"""Sweeps over the options of any recorded verb, and the experiments that are made of them."""
