"""A study: a question as a declaration, with one loop for all of them.

A study is a frozen dataclass. Its fields are the settings; its methods say what to load, how to
measure, and what the records tell. The rest is here and in `advpure.cli.studies`: the run folder,
resuming, progress, the report of what was computed before, and the command line. A question that is
added is one class and one line in `advpure.studies`; docs/new-study.md walks through one.
"""

from advpure.analysis.study.loaded import Loaded, LoadedModel, Shard
from advpure.analysis.study.models import DefenseStudy, ModelStudy, PurifierStudy
from advpure.analysis.study.report import Columns, Report
from advpure.analysis.study.session import Progress, Session, chunks, never, silent
from advpure.analysis.study.study import GOES_ON, Study, cost_of

__all__ = [
    "GOES_ON",
    "Columns",
    "DefenseStudy",
    "Loaded",
    "LoadedModel",
    "ModelStudy",
    "Progress",
    "PurifierStudy",
    "Report",
    "Session",
    "Shard",
    "Study",
    "chunks",
    "cost_of",
    "never",
    "silent",
]
