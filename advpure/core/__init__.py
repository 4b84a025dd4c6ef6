"""Randomness as a value, schedules, denoisers, chains, exact gradients, purifiers, defenses."""
