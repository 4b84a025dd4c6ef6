"""Stored proofs: tensor names, shapes and answers of published networks, one file each."""
