"""The checks, one file each; `advpure.analysis.audit.registry` lists them."""
