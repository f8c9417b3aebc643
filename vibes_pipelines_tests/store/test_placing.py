"""Putting into place: all bytes are on the disk before the name is, and a folder is whole."""

import errno
import os
from pathlib import Path

import pytest

from vibes_pipelines.store.placing import put, put_instead, write_text


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in its order; all of it is done."""
    seen: list[str] = []
    opened: dict[int, str] = {}
    real_open, fsync, replace, rename = os.open, os.fsync, os.replace, os.rename

    def open_(path: Path, *arguments: int, **options: int) -> int:
        descriptor = real_open(path, *arguments, **options)
        opened[descriptor] = Path(path).name
        return descriptor

    def sync(descriptor: int) -> None:
        seen.append(f"sync {opened[descriptor]}")
        fsync(descriptor)

    def moving(move: object) -> object:
        def moved(source: Path, target: Path) -> None:
            seen.append(f"{Path(source).name} to {Path(target).name}")
            move(source, target)

        return moved

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", moving(replace))
    monkeypatch.setattr(os, "rename", moving(rename))
    return seen


def _folder(place: Path, text: str) -> Path:
    place.mkdir()
    (place / "file").write_text(text)
    return place


def test_a_folder_is_synced_before_it_has_its_name(tmp_path: Path, done: list[str]) -> None:
    put(_folder(tmp_path / "draft", "new"), tmp_path / "place")
    assert done == ["sync file", "sync draft", "draft to place", f"sync {tmp_path.name}"]
    assert (tmp_path / "place" / "file").read_text() == "new"


def test_a_folder_that_is_there_stays_or_goes_whole(tmp_path: Path, done: list[str]) -> None:
    place = _folder(tmp_path / "place", "old")
    draft = _folder(tmp_path / "draft", "new")
    with pytest.raises(OSError, match="not empty"):
        put(draft, place)
    assert (place / "file").read_text() == "old"
    done.clear()
    put_instead(draft, place)
    assert done[:4] == ["sync file", "sync draft", "place to place", "draft to place"]
    assert (place / "file").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["place"]


def test_a_folder_that_could_not_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, draft = _folder(tmp_path / "place", "old"), _folder(tmp_path / "draft", "new")
    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if Path(source) == draft:
            raise OSError(errno.ENOSPC, "no space")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="no space"):
        put_instead(draft, place)
    assert (place / "file").read_text() == "old"


def test_a_text_is_synced_before_it_has_its_name(tmp_path: Path, done: list[str]) -> None:
    place = tmp_path / "page.html"
    place.write_text("old")
    write_text(place, "new")
    assert done[:2] == ["sync page.html", "page.html to page.html"]
    assert place.read_text() == "new"
    assert list(tmp_path.iterdir()) == [place]
