"""Files that others made: read from a zip archive without unpacking it, or from a folder, and downloaded once.

Nothing of an archive is written to the disk or executed: members are read into memory one at a time, and arrays are
never unpickled. What an archive could do harm with (paths that lead elsewhere, links, more bytes than announced) is
refused, naming the file.
"""

import hashlib
import io
import os
import re
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Self

import numpy as np

from distillbench.data.graph_data import DataError

MEMBER_LIMIT = 2**30  # bytes of one member, unpacked
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what zip tools write, and unpacks in bounded steps


class Files:
    """The files of a zip archive or of a folder, by name ("a/b.npy"); use in a ``with`` statement.

    depth: folders are listed so deep (an archive wholly). limit: bytes of an archive's members together, unpacked; it
    is what makes a bomb of any compression ratio an error. Raises DataError naming the file for whatever is wrong.
    """

    def __init__(self, path: Path, *, depth: int = 2, limit: int = 2**30) -> None:
        self.path, self._archive = path, None
        self._members: dict[str, Any] = {}
        if path.is_dir():
            found = (each for level in range(depth) for each in path.glob("/".join(["*"] * (level + 1))))
            self._members = {each.relative_to(path).as_posix(): each for each in sorted(found) if each.is_file()}
            return
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path}: cannot be read as a zip archive ({error}); cut short, or another file?"
            ) from error
        try:
            self._members = self._checked(self._archive, limit)
        except DataError:
            self._archive.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._archive:
            self._archive.close()

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted."""
        return sorted(self._members)

    def find(self, base: str) -> str:
        """The name of the one file called ``base``, in whatever folder. Raises DataError where there is none or two."""
        found = [name for name in self._members if PurePosixPath(name).name == base]
        if len(found) == 1:
            return found[0]
        problem = f"has {', '.join(sorted(found))}; one is wanted" if found else f"has no {base}"
        raise DataError(f"{self.path}: {problem}")

    def where(self, name: str) -> str:
        """How messages call a file: with its archive or folder."""
        return f"{self.path}: {name}"

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise DataError about one file."""
        raise DataError(f"{self.where(name)}: {problem}")

    def read(self, name: str) -> bytes:
        """Content of one file."""
        if name not in self._members:
            raise DataError(f"{self.path}: has no {name}")
        try:
            if self._archive is None:
                return Path(self._members[name]).read_bytes()
            with self._archive.open(self._members[name]) as member:
                content = b"".join(iter(lambda: member.read(2**20), b""))  # zipfile stops where its header says
        except Exception as error:  # zipfile and zlib name a damaged member in half a dozen ways
            raise DataError(f"{self.where(name)}: cannot be read ({type(error).__name__}: {error})") from error
        if len(content) != self._members[name].file_size:
            self.fail(name, f"{len(content)} bytes, {self._members[name].file_size} announced")
        return content

    def array(self, name: str) -> np.ndarray:
        """Content of one .npy file, never unpickled."""
        content = self.read(name)
        try:
            found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise ValueError("an archive, not an array")
            if found.dtype.kind == "U":
                found.tolist()  # numpy reads what is no Unicode, and nothing can be done with it
        except Exception as error:  # numpy names a damaged file in a dozen ways
            raise DataError(f"{self.where(name)}: not an array ({type(error).__name__}: {error})") from error
        return found

    def _checked(self, archive: zipfile.ZipFile, limit: int) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = info.orig_filename  # as written in the archive: zipfile cuts it at a zero byte
            problem = _refused(info) or ("occurs twice" if name in members else None)
            if problem:
                raise DataError(f"{self.path}: refused: member {name!r} {problem}")
            members[name] = info
        total = sum(info.file_size for info in members.values())
        if total > limit:
            raise DataError(f"{self.path}: refused: {total:,} bytes unpacked, more than {limit:,}")
        return {name: info for name, info in members.items() if not info.is_dir()}


def _refused(info: zipfile.ZipInfo) -> str | None:
    name = info.orig_filename
    if name.startswith("/") or ".." in name.split("/") or re.search(r"\\|\0|^[A-Za-z]:", name):
        return "leads out of the archive, or is no portable name"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return f"is packed by method {info.compress_type}, not stored or deflated"
    return f"has {info.file_size:,} bytes unpacked" if info.file_size > MEMBER_LIMIT else None


def sha256(source: Path | bytes) -> str:
    """SHA-256 (hex) of a file of any size, or of its content."""
    return _digest(source, lambda _: hashlib.sha256())


def git_id(source: Path | bytes) -> str:
    """What git calls the content of a file (40 hex digits): ``git ls-tree`` lists it, where nothing else is known."""
    return _digest(source, lambda size: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False))


def fingerprint(source: Path | bytes, like: str) -> str:
    """The digest that ``like`` is one of: git's id where it has 40 digits, else SHA-256."""
    return git_id(source) if len(like) == 40 else sha256(source)


def _digest(source: Path | bytes, start: Callable[[int], Any]) -> str:
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return hashlib.file_digest(file, lambda: start(size)).hexdigest()
    except OSError as error:
        raise DataError(f"{source!s}: cannot be read ({error})") from error


def given(path: str) -> Path:
    """A file or folder named in the config, ``~`` expanded. Raises DataError where it does not exist."""
    found = Path(path).expanduser()
    if not found.exists():
        raise DataError(
            f"{found.absolute()}: no such file or folder; correct `path` in datasets.<name>.params of the config"
        )
    return found


def downloaded(
    target: Path, url: Callable[[], str], expected: str, size: int | None = None, *, others: str = ""
) -> Path:
    """``target``, fetched by PyG's downloader unless it is there; in either case its fingerprint is ``expected``.

    It gets its name only when it is whole: a download cut short is never taken for a whole one, nor kept. ``url`` is
    called only where something is fetched, for those who have the address from a library that is slow to import.
    others: the files of the same folder that are needed with it, as messages should call them.

    Raises:
        DataError: saying what to fetch and where to put it, or what was found instead of ``size`` bytes with this
            digest.
    """
    if not target.is_file():
        _fetch(url(), target, expected, size, others)
    elif (found := fingerprint(target, expected)) != expected:
        otherwise = "; to use it all the same, move it elsewhere and name it in datasets.<name>.params.path"
        raise DataError(
            f"{target.absolute()}: not the file expected: {_described(target.stat().st_size, found)}, instead of "
            f"{_described(size, expected)}. Delete it to have it downloaded again{'' if others else otherwise}"
        )
    return target


def _described(size: int | None, digest: str) -> str:
    kind = "git id" if len(digest) == 40 else "SHA-256"
    return f"{kind} {digest}" if size is None else f"{size:,} bytes with {kind} {digest}"


def _fetch(url: str, target: Path, expected: str, size: int | None, others: str) -> None:
    from torch_geometric.data import download_url

    draft = target.with_name(f".{target.name}.{os.getpid()}")
    instead = f"Fetch {url} on any machine and put it at {target.absolute()}, " + (
        f"likewise {others}; or name the folder they are in as datasets.<name>.params.path of the config"
        if others
        else "or name it in datasets.<name>.params.path of the config"
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _timeout(60):
            download_url(url, str(draft.parent), log=False, filename=draft.name)
        if (found := fingerprint(draft, expected)) != expected:
            raise DataError(
                f"{url}: {_described(draft.stat().st_size, found)} came, instead of {_described(size, expected)}; "
                f"deleted again. Try once more. {instead}"
            )
        draft.replace(target)
    except (OSError, HTTPException) as error:
        raise DataError(f"{url}: cannot be downloaded ({error}). {instead}") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Compute nodes without a way out drop packets silently: without this a download would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
