"""Files of the Hub in its cache: found, or fetched and checked before they get their names.

The cache is that of the Hub's own library, laid out as it lays it out, so that both use what either
has fetched: `models--org--repo/{blobs/<etag>, snapshots/<commit>/<file> -> blob, refs/<branch>}`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from speakup.errors import ModelError
from speakup.files import NO_SURPRISE, Temporary
from speakup.models.hub import client
from speakup.models.hub.client import HASH, BadAnswer, FileProgress, Offer, RemoteFile
from speakup.models.hub.faults import explain, fetch_command

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASHES = {64: "sha256", 40: "sha1"}


def cache_folder() -> Path:
    """Give the folder of the Hub's cache, as HF_HOME and its like say."""
    return Path(client.library().constants.HF_HUB_CACHE)


def find_file(file: RemoteFile) -> Path | None:
    """Find a file in the cache; nothing is requested and nothing is checked."""
    place, commit = _repository_folder(file), file.revision
    with contextlib.suppress(OSError, ValueError):
        if not _COMMIT.fullmatch(commit):
            commit = _read_branch(place / "refs" / commit)
        path = place / "snapshots" / commit / file.name
        if path.is_file():
            return path
    return None


def _read_branch(path: Path) -> str:
    """Read the commit that a branch stands for.

    Raises:
        OSError, ValueError: nothing of the kind is there.
    """
    with open(os.open(path, os.O_RDONLY | NO_SURPRISE), encoding="ascii") as file:
        commit = file.read(100).strip()
    if not _COMMIT.fullmatch(commit):
        raise ValueError(commit)
    return commit


def snapshot_folder(file: RemoteFile) -> Path:
    """Give the folder in which the files of a commit lie, or will."""
    return _repository_folder(file) / "snapshots" / file.revision


def fault_of(path: Path, file: RemoteFile) -> str | None:
    """Say in what a file differs from what it must be, or None where it is right.

    Without a pinned hash, a blob that the cache names by its hash must have that one.
    """
    blob = path.resolve().name
    try:
        return _fault(path, file.bytes, file.sha256 or (blob if HASH.fullmatch(blob) else None))
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def fetch_file(
    file: RemoteFile,
    *,
    model: str,
    words: str | None = None,
    offline: bool = False,
    refresh: bool = False,
    progress: FileProgress | None = None,
) -> Path:
    """Give a file's place in the cache; it is fetched if it is missing or damaged.

    Args:
        file: Which.
        model: What the user calls the model; errors name it.
        words: What `speakup models fetch` is to be given to mend things; by default the model.
        offline: Make no request.
        refresh: Ask the Hub anew what a branch or tag stands for.
        progress: Told how far the download is.

    Raises:
        ModelError: it cannot be had, or is not what it must be.
    """
    words = words or model
    offline = offline or client.is_offline()
    found = find_file(file)
    fault = None if found is None else fault_of(found, file)
    known = offline or not refresh or _COMMIT.fullmatch(file.revision) is not None
    if found is not None and fault is None and known:
        return found
    if offline:
        what = "is not in the cache" if fault is None else f"{file.name} in the cache {fault}"
        raise ModelError(
            f"{what} ({cache_folder()}), and no request may be made",
            model,
            f"With a network, and without `offline` and HF_HUB_OFFLINE, {fetch_command(words)} "
            f"gets {file.origin}",
        )
    try:
        return _fetch(file, progress or (lambda name, done, total: None))
    except Exception as error:
        raise explain(error, file, model, words) from error


def remove_file(file: RemoteFile) -> int:
    """Take a file out of the cache, with its content if nothing else there shows it.

    Returns:
        The bytes that are free now.

    Raises:
        ModelError: it may not be removed.
    """
    path = find_file(file)
    if path is None:
        return 0
    place, blob = _repository_folder(file), path.resolve()
    freed = blob.stat().st_size
    try:
        _folder(place, *path.parent.relative_to(place).parts)
        path.unlink()
        others = {entry.resolve() for entry in (place / "snapshots").rglob("*") if entry.is_file()}
        if blob in others or blob.parent not in (place.resolve() / "blobs", path.parent.resolve()):
            freed = 0  # Another name's, or not of this cache.
        else:
            blob.unlink(missing_ok=True)
        _drop_empty(path.parent, place)
    except OSError as error:
        problem = f"{path} cannot be removed ({error.strerror})"
        raise ModelError(problem, file.repository, "Remove it as its owner") from error
    return freed


def _drop_empty(folder: Path, place: Path) -> None:
    """Remove empty folders from the inside out; of a repository without snapshots, everything."""
    while folder != place and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
    if folder == place:
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(place.parent / ".locks" / place.name, ignore_errors=True)


def _fetch(file: RemoteFile, tell: FileProgress) -> Path:
    offer = client.ask(file)
    offer = replace(offer, bytes=file.bytes or offer.bytes)
    hashed = file.sha256 or (offer.etag if HASH.fullmatch(offer.etag) else None)
    if offer.bytes is None and hashed is None:
        raise BadAnswer(f"neither size nor hash are given for {file.name}")
    if (offer.bytes or 0) > file.most:
        raise BadAnswer(
            f"{file.name} has {offer.bytes} bytes, and no more than {file.most} are taken"
        )
    place = _repository_folder(file)
    commit = file.revision if _COMMIT.fullmatch(file.revision) else offer.commit
    if commit != offer.commit and file.sha256 is None:
        raise BadAnswer(f"the Hub answers for the commit {commit} with {offer.commit}")
    # Two servers may give one content two ETags; its hash is the same on both.
    blob = _folder(place, "blobs") / (hashed or offer.etag)
    *above, name = file.name.split("/")
    path = _folder(place, "snapshots", commit, *above) / name
    with _locked(place, blob.name):
        # Also where a server gives several files one ETag.
        if not blob.is_file() or _fault(blob, offer.bytes, hashed) is not None:
            _bring(file, offer, blob, hashed, tell)
        _show(blob, path)
    if commit != file.revision:
        *above, name = file.revision.split("/")
        _note_branch(_folder(place, "refs", *above) / name, commit)
    return path


def _folder(place: Path, *names: str) -> Path:
    """Make a folder in that of a repository, from where no link leads elsewhere.

    Others may write to a cache that is shared; where we write is ours to say.

    Raises:
        OSError: it cannot be made, or a link is in the way.
    """
    folder = place.resolve().joinpath(*names)
    if folder.resolve() != folder:
        raise OSError(errno.ELOOP, "a link leads elsewhere", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bring(
    file: RemoteFile, offer: Offer, blob: Path, hashed: str | None, tell: FileProgress
) -> None:
    """Download the content of a blob, check it, and give it its name; if bad, once more."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    fault: str | None = None
    if not _is_ours(partial):
        partial.unlink(missing_ok=True)
    for _ in range(2):
        missing = (offer.bytes or 0) - client.bytes_of(partial)
        if missing > shutil.disk_usage(partial.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))
        try:
            client.receive(file, offer.bytes, partial, tell)
            fault = _fault(partial, offer.bytes, hashed)
        except BadAnswer as error:
            fault = str(error)
        if fault is None:
            partial.replace(blob)
            return
        partial.unlink(missing_ok=True)
    raise BadAnswer(f"{file.name}, fetched twice, {fault}")


def _is_ours(path: Path) -> bool:
    """Tell whether there is a file of our own: no link, no other name for a file elsewhere."""
    try:
        found = path.lstat()
    except OSError:
        return False
    owner = os.geteuid() if hasattr(os, "geteuid") else found.st_uid
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == owner


def _show(blob: Path, path: Path) -> None:
    """Put a blob's name into a snapshot: a link, or the file itself where there are no links."""
    target = os.path.relpath(blob, path.parent)
    with contextlib.suppress(OSError):
        if os.readlink(path) == target:
            return
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        new.symlink_to(target)
    except OSError:
        with _appearing(path) as out, blob.open("rb") as content:
            shutil.copyfileobj(content, out)
    else:
        new.replace(path)


def _note_branch(path: Path, commit: str) -> None:
    with _appearing(path) as out:
        out.write(commit.encode())


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write, which has its name at the end of the block, whole."""
    new = Temporary(path)
    try:
        with open(new.open(), "wb") as out:
            yield out
        new.move()
    finally:
        new.remove()


@contextlib.contextmanager
def _locked(place: Path, name: str) -> Iterator[None]:
    """Keep other processes, also those with the Hub's own library, from fetching the same."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    lock = _folder(place.parent, ".locks", place.name) / f"{name}.lock"
    if lock.is_symlink():  # Some versions empty the file behind it.
        lock.unlink()
    with WeakFileLock(lock):
        yield


def _fault(path: Path, wanted: int | None, hashed: str | None) -> str | None:
    found = path.stat()
    if wanted is not None and found.st_size != wanted:
        return f"has {found.st_size} bytes instead of {wanted}"
    if hashed is None:
        return None
    seen = _hash(str(path.resolve()), found.st_size, found.st_mtime_ns, _HASHES[len(hashed)])
    if seen != hashed:
        name = "SHA-256" if len(hashed) == 64 else "hash"
        return f"has the {name} {seen[:12]}… instead of {hashed[:12]}…"
    return None


@functools.lru_cache(maxsize=64)
def _hash(path: str, size: int, changed: int, kind: str) -> str:
    """Hash a file once in a process; when its size or time change, the hash is forgotten."""
    # git hashes a file's content behind a head of its own.
    hashed = hashlib.new(kind, b"blob %d\0" % size if kind == "sha1" else b"")
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            hashed.update(piece)
    return hashed.hexdigest()


def _repository_folder(file: RemoteFile) -> Path:
    return cache_folder() / f"models--{file.repository.replace('/', '--')}"
