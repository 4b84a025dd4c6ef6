"""Attacks of other libraries, behind one contract: see `advpure.attacks.engines.contract`."""
