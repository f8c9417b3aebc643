"""Which files an erasure looks into: all that may hold rows of people, in the whole data folder.

What a process left that died goes first. Nothing but landings can be under way while an erasure
holds its lock.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.vibes.import_kinds import KINDS

_LANDING_PREFIX = ".unfinished-"
_LANDING_LASTS_S = 6 * 3600
_DRAFTS = ("diff_sets/*.draft", "diff_sets/.unfinished-*", "bases/.unfinished-*")
_LEFT = (".erasing-*", ".removing-*", ".hashes-*", ".certifying-*", ".preview-*")
_IMPORTS = frozenset(f".{kind}" for kind in KINDS)


def remove_what_is_left(home: Path) -> None:
    """Removes drafts of processes that died.

    Raises:
        ErasureError: a landing is under way, or what it left is younger than landings last.
    """
    for folder in home.rglob(f"{_LANDING_PREFIX}*"):
        if "landing" not in folder.parts or not folder.is_dir():
            continue
        if time.time() - folder.stat().st_mtime < _LANDING_LASTS_S:
            msg = f"{folder.parent}: a landing is under way; run the same erase again after it"
            raise ErasureError(msg)
        shutil.rmtree(folder)
    places = [home, *(entry for entry in home.iterdir() if (entry / "diff_sets").is_dir())]
    doomed = [draft for place in places for pattern in _DRAFTS for draft in place.glob(pattern)]
    doomed += [draft for pattern in _LEFT for draft in home.rglob(pattern)]
    for draft in doomed:
        shutil.rmtree(draft, ignore_errors=True)  # one may have stood in another
    for draft in home.rglob(".*.erasing"):
        draft.unlink()


def files_of_people(home: Path) -> Iterator[tuple[str, Path]]:
    """Parquet and import files, with the name of the folder that each is counted under.

    Drafts are left out: nobody reads them, and half of one cannot be read.
    """
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home)
        if path.suffix not in {".parquet", *_IMPORTS} or not path.is_file():
            continue
        if not any(_is_draft(part) for part in inside.parts[:-1]):
            yield inside.parts[0], path


def _is_draft(folder: str) -> bool:
    return folder.startswith(".") or folder.endswith(".draft")
