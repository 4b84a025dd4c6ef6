"""One sitting of a run: what is loaded, the open records, and which images are left."""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from advpure.analysis.study.loaded import Loaded
from advpure.core.tiling import check_rows
from advpure.data import Images
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema

Progress = Callable[[int], None]
L = TypeVar("L", bound=Loaded)


def silent(done: int) -> None:
    """Show no progress."""


def never() -> bool:
    """Return that a run goes on to its end."""
    return False


@dataclass(frozen=True)
class Session(Generic[L]):
    """One sitting of a run.

    Attributes:
        loaded: What the study loaded.
        store: The records, open.
        batch_size: Rows in memory at once, a matter of memory only; None for the study's choice.
        progress: To be called with the number of finished units of `Study.total`.
        enough: Whether the run may end before its last image, see `Study.stopping`.
    """

    loaded: L
    store: RecordStore
    batch_size: int | None
    progress: Progress
    enough: Callable[[], bool] = never

    def batches(self, images: Images, schema: Schema, size: int) -> Iterator[Images]:
        """Yield the images that have no row yet, and show progress by images.

        Args:
            images: Images, labels and ids.
            schema: The table of the rows; its first key is the id of an image.
            size: Images at once where the session does not say.
        """
        done = {i for (i,) in self.store.done(schema.table, next(iter(schema.keys)))}
        count = len(done.intersection(images.ids.tolist()))
        size = check_rows(size if self.batch_size is None else self.batch_size)
        self.progress(count)
        for batch in chunks(images, size, done):
            if self.enough():
                return
            yield batch
            count += len(batch.ids)
            self.progress(count)


def chunks(images: Images, size: int, done: Container[int] = ()) -> Iterator[Images]:
    """Yield the images whose ids are not among `done`, at most `size` at once, in their order."""
    todo = [k for k, i in enumerate(images.ids.tolist()) if i not in done]
    for start in range(0, len(todo), size):
        rows = torch.tensor(todo[start : start + size], dtype=torch.int64, device="cpu")
        yield Images(*(part[rows] for part in images))
