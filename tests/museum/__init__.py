"""Defenses and evaluations with one known flaw each, and sound ones, for the audit."""
