"""A text file's lines by number, with only those around the current one in memory."""

import stat
from collections.abc import Iterator
from pathlib import Path

from mtbert.corpus.origins import Origin
from mtbert.errors import MtbertError

BLOCK = 1 << 17  # bytes per read, extended to a line end; larger blocks do not fit the processor's cache
KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_is_file(path: Path, remedy: str) -> None:
    """Refuse anything but a regular file: reading a FIFO or a device may block for ever.

    Raises:
        MtbertError: it is something else, which the message names.
        OSError: it is missing, or its type cannot be read.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise MtbertError(f"{path}: {KINDS.get(kind, 'something else')} instead of a file; {remedy}")


class Lines:
    """The file's lines without their ends (LF or CRLF) and without empty lines at its end.

    Indexed from 0, like a list; lines ahead are read as needed, but discarded lines cannot be read again.

    Attributes:
        origin: the file and the remedies that messages name.
        delimiter: what separates the fields of a row; the header decides.
        loaded: number of lines read so far, discarded ones included.

    Raises:
        MtbertError: the file is missing, not a regular file, empty, not UTF-8, or starts with a byte order mark. The whole file
            is decoded once at the start, so that no line of a faulty file is ever returned.
    """

    def __init__(self, path: Path, origin: Origin) -> None:
        self.origin = origin
        self.delimiter = "\t"
        self._count = _checked(path, origin)
        self._blocks = _blocks(path)
        self._lines: list[str] = []
        self._first = 0
        self.loaded = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        while index >= self.loaded:
            self._load()
        return self._lines[index - self._first]

    def skip_to(self, index: int) -> None:
        """Discard the lines before `index` and load that line."""
        while self.loaded <= index:
            self._discard(self.loaded)
            self._load()
        self._discard(index)

    def _load(self) -> None:
        text = next(self._blocks).decode("utf-8").removesuffix("\n")
        lines = text.split("\n")
        self._lines += [line.removesuffix("\r") for line in lines] if "\r" in text else lines
        self.loaded = min(self._first + len(self._lines), self._count)

    def _discard(self, index: int) -> None:
        del self._lines[: index - self._first]
        self._first = index


def _blocks(path: Path) -> Iterator[bytes]:
    """The file's bytes in blocks that end at line ends."""
    with path.open("rb") as file:
        while block := file.read(BLOCK) + file.readline():
            yield block


def _checked(path: Path, origin: Origin) -> int:
    """Decode the whole file; the number of its lines."""
    lines = last = offset = 0
    blank = True
    try:
        check_is_file(path, origin.fix_file)
        for block in _blocks(path):
            if offset == 0:
                _check_mark(block, origin)
            text = _decoded(block, offset, lines, origin)
            blank = blank and text.isspace()
            # Where the last non-empty line ends. Only one carriage return belongs to a line's end, so a line that has two is not empty.
            end = max(len(text.rstrip("\r\n")), text.rfind("\r\r") + 1)
            if end:
                last = lines + text.count("\n", 0, end) + 1
            lines += text.count("\n")
            offset += len(block)
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; run `dvc repro fetch`") from None
    except OSError as error:
        raise MtbertError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if blank:
        raise MtbertError(f"{origin.name}:1:1: the file is empty; {origin.fix_file}")
    return last


def _check_mark(start: bytes, origin: Origin) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MtbertError(f"{origin.name}:1:1: UTF-16 rather than UTF-8; {origin.fix_encoding}")
    if start.startswith(b"\xef\xbb\xbf"):
        raise MtbertError(f"{origin.name}:1:1: starts with a byte order mark; {origin.fix_encoding}")


def _decoded(block: bytes, offset: int, lines: int, origin: Origin) -> str:
    """The text of a block that starts at byte `offset`, after `lines` lines."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        start = block.rfind(b"\n", 0, error.start) + 1
        line = lines + block.count(b"\n", 0, error.start) + 1
        column = len(block[start : error.start].decode("utf-8")) + 1
        at = offset + error.start
        what = f"not UTF-8 (byte {block[error.start]:#04x} at offset {at}); {origin.fix_encoding}"
        # Only the last block can end inside a character: the others end with a newline.
        if error.reason == "unexpected end of data":
            what = f"truncated: the file ends inside a character (at offset {at}); {origin.fix_file}"
        raise MtbertError(f"{origin.name}:{line}:{column}: {what}") from None
