"""Shards of one run into one run folder: the same rows as if one process had computed them.

A shard knows which part it is and whether it is complete, so that holes are seen; the settings are
those of the whole run, so that strangers are; and no row may stand in two shards with other values,
so that overlaps which disagree are. Nothing is computed, and the shards stay as they are.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from advpure.base.errors import BadInput
from advpure.runs.header import check_context, check_settings
from advpure.runs.records import FILE_NAME, RecordConflict, RecordStore

_BESIDE = ("shard", "started", "images")
"""What a session says that is not that of all shards."""


def check_shards(stores: Sequence[RecordStore]) -> list[str]:
    """Refuse shards that do not make one run.

    Args:
        stores: The records of the shards, open.

    Returns:
        What a reader should know, in sentences.

    Raises:
        BadInput: for fewer than two; settings, images, weights or data that differ; a run that is
            whole, a shard named twice, missing, of another number of parts, or not complete.
    """
    if len(stores) < 2:
        raise BadInput(
            f"{len(stores)} run", "is nothing to merge", "name the folders of all shards"
        )
    first, *others = stores
    notes = []
    for other in others:
        _as_shards(check_settings, first.settings, other.settings, first.folder)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _as_shards(check_context, first.context, other.context, first.folder)
        notes += [str(each.message) for each in caught]
    if any("shard" in store.context for store in stores):
        _check_parts(stores)
    return list(dict.fromkeys(notes))


def _as_shards(check: Callable[[Any, Any, Path], None], one: Any, other: Any, at: Path) -> None:
    """Check as for a run that goes on, with what to do about shards."""
    try:
        check(one, other, at)
    except BadInput as error:
        raise BadInput(error.subject, error.rule, "merge the shards of one run alone") from None


def _check_parts(stores: Sequence[RecordStore]) -> None:
    """Refuse parts that are not the whole, each complete and there once."""
    parts: dict[int, Path] = {}
    count = 0
    for store in stores:
        shard = store.context.get("shard")
        if shard is None:
            raise BadInput(str(store.folder), "is no shard", "name the folders of shards alone")
        i, k = shard
        if count and k != count:
            rule = f"is shard {i}/{k}, where {stores[0].folder} is one of {count}"
            raise BadInput(str(store.folder), rule, "merge the shards of one division")
        count = k
        if i in parts:
            raise BadInput(str(store.folder), f"is shard {i}/{k}, as {parts[i]} is", "name it once")
        if not store.finished:
            rule = f"is shard {i}/{k} and not complete"
            raise BadInput(str(store.folder), rule, "give its command again, which goes on")
        parts[i] = store.folder
    if absent := [f"{i}/{count}" for i in range(1, count + 1) if i not in parts]:
        what = f"shard {absent[0]}" if len(absent) == 1 else f"shards {', '.join(absent)}"
        raise BadInput(
            what, "is missing" if len(absent) == 1 else "are missing", "name all folders"
        )


def join_shards(
    stores: Sequence[RecordStore],
    folder: str | Path,
    missing: Callable[[RecordStore], str] = lambda _: "",
) -> None:
    """Write the rows and tensors of all shards into one run folder, those of nested runs too.

    Args:
        stores: The records of the shards, open, checked by `check_shards`.
        folder: The run folder to make or go on with; marked as complete where nothing is missing.
        missing: Says in words what the rows lack beside what the settings ask for.

    Raises:
        BadInput: when the folder holds another run, rows of two shards disagree, or any is missing.
        StorageFull: when there is no room.
    """
    folder = Path(folder)
    if folder.resolve() in {store.folder.resolve() for store in stores}:
        raise BadInput(str(folder), "is one of the shards", "choose another folder")
    ids = {i for store in stores for i in store.samples or ()}
    with RecordStore.open(
        folder,
        schemas=_schemas(stores),
        settings=stores[0].settings,
        context=_context(stores),
        samples=sorted(ids) or None,
    ) as whole:
        for store in stores:
            try:
                for schema in store.schemas:
                    whole.append(schema.table, store.rows(schema.table))
                for name in store.blobs():
                    whole.put_blob(name, store.get_blob(name))
            except RecordConflict as conflict:
                rule = f"disagrees with an earlier shard: {conflict}"
                raise BadInput(str(store.folder), rule, "compute one of them again") from None
        if lacking := missing(whole):
            raise BadInput(f"{len(stores)} shards", lacking, "name the folders of all shards")
        whole.finish()
    for name in sorted(set.intersection(*map(_nested, stores))):
        with ExitStack() as stack:
            inner = [stack.enter_context(RecordStore.read(store.folder / name)) for store in stores]
            join_shards(inner, folder / name)


def _schemas(stores: Sequence[RecordStore]) -> list[Any]:
    """Return the layouts of all tables; the first store's main table stays the main one."""
    schemas = {schema.table: schema for store in stores for schema in store.schemas}
    return list(schemas.values())


def _context(stores: Sequence[RecordStore]) -> dict[str, Any]:
    """Return the context of the whole run: the first shard's, with the images of all."""
    first: Mapping[str, Any] = stores[0].context
    shared = {name: value for name, value in first.items() if name not in _BESIDE}
    if study := shared.get("study"):
        shared["study"] = {**study, **({"shard": None} if "shard" in study else {})}
    images = {i: digest for store in stores for i, digest in store.context["images"].items()}
    return {**shared, "images": images, "merged": len(stores)}


def _nested(store: RecordStore) -> set[str]:
    """Return the names of the run folders within a run folder."""
    return {path.parent.name for path in store.folder.glob(f"*/{FILE_NAME}")}
