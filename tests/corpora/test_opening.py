"""Compressed texts: the same lines as uncompressed, and an error if one is damaged."""

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import sys

import pytest

from fairseq_lambda.compressed import unpacked
from fairseq_lambda.corpora import opening
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.opening import TextFile

TEXT = "".join(f"{random.Random(i).random()} ä 漢\n" for i in range(20_000)).encode() + b"no line end"


def zstd(data):
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(data)


PACKERS = {"plain": lambda data: data, "xz": lzma.compress, "gzip": gzip.compress, "bzip2": bz2.compress, "zstd": zstd}


def lines(path):
    with TextFile(path) as file:
        return list(file)


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("parts", [1, 3])
def test_lines_are_those_of_the_text_whatever_packs_it(tmp_path, pack, parts):
    path = tmp_path / "a text"  # the name does not matter
    step = len(TEXT) // parts + 1
    path.write_bytes(b"".join(pack(TEXT[i : i + step]) for i in range(0, len(TEXT), step)))
    assert lines(path) == io.BytesIO(TEXT).readlines()
    with TextFile(path) as file:
        assert file.position <= 1 << 16 and len(list(file)) and file.position == path.stat().st_size


@pytest.mark.parametrize("kind", [0x50, 0x5F])
def test_the_frames_of_zstd_that_are_to_be_skipped(tmp_path, kind):
    """pzstd writes one before each frame."""
    skipped = bytes([kind]) + b"\x2a\x4d\x18\4\0\0\0abcd"
    (tmp_path / "text").write_bytes(2 * (skipped + zstd(TEXT)) + skipped)
    assert lines(tmp_path / "text") == io.BytesIO(2 * TEXT).readlines()
    (tmp_path / "text").write_bytes(skipped + zstd(TEXT) + skipped[:-1])
    with pytest.raises(PrepareError, match="text is damaged or cut short"):
        lines(tmp_path / "text")


class Trickle(io.RawIOBase):
    """A pipe to which a byte is written at a time; it counts what was read."""

    def __init__(self, data):
        self.data, self.read_so_far = data, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.data[self.read_so_far : self.read_so_far + 1]
        buffer[: len(part)] = part
        self.read_so_far += len(part)
        return len(part)


@pytest.mark.parametrize("text", [b"", b"B", b"no line end", b"(a\nb\n", "\ufeffä\n".encode(), 99 * b"line\n"])
@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_pipe_that_hands_over_little_at_a_time(pack, text, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "open", lambda *_: io.BufferedReader(Trickle(pack(text))))
    assert lines(tmp_path) == io.BytesIO(text).readlines()


def test_a_zip_archive_from_a_slow_pipe(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "open", lambda *_: io.BufferedReader(Trickle(b"PK\3\4\x14\0" + bytes(99))))
    with pytest.raises(PrepareError, match="a zip archive"):
        TextFile(tmp_path)


def test_no_more_than_the_first_line_is_awaited():
    """Somebody may be typing."""
    pipe = Trickle(b"(a)\nb\n")
    assert unpacked(io.BufferedReader(pipe))[0].readline() == b"(a)\n" and pipe.read_so_far == 4


@pytest.mark.parametrize("pack", list(PACKERS.values())[1:], ids=list(PACKERS)[1:])
def test_a_damaged_file_is_not_a_short_text(tmp_path, pack):
    path = tmp_path / "text"
    whole = pack(TEXT)
    for bad in (whole[:-5], whole[: len(whole) // 2], whole[:20], whole + b"more"):
        path.write_bytes(bad)
        with pytest.raises(PrepareError, match="text is damaged or cut short"):
            lines(path)
    path.write_bytes(whole[: len(whole) // 2] + b"\xff" * 9 + whole[len(whole) // 2 + 9 :])
    with pytest.raises(PrepareError, match="text is damaged or cut short"):
        lines(path)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_a_frame_with_a_damaged_start_does_not_end_the_text(tmp_path, pack):
    (tmp_path / "text").write_bytes(pack(TEXT) + pack(TEXT)[:2] + b"x" + pack(TEXT)[3:])
    with pytest.raises(PrepareError, match="text is damaged or cut short"):
        lines(tmp_path / "text")


@pytest.mark.parametrize("padding", [0, 4, 1 << 18])
def test_the_streams_of_xz_may_be_padded(tmp_path, padding):
    (tmp_path / "text").write_bytes((lzma.compress(TEXT) + bytes(padding)) * 2)
    assert lines(tmp_path / "text") == io.BytesIO(2 * TEXT).readlines()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_an_error_of_the_disk_is_not_taken_for_damage(tmp_path, pack):
    (tmp_path / "text").write_bytes(pack(TEXT))
    with TextFile(tmp_path / "text") as file:
        file._file.close()
        file._text = io.BufferedReader(Broken())
        with pytest.raises(PrepareError, match="cannot read .*text: Input/output error"):
            list(file)


class Broken(io.RawIOBase):
    def readable(self):
        return True

    def readinto(self, buffer):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("start", "what"), [(b"PK\3\4\x14\0", "a zip archive, .* unpack it"), (b"%PDF-1.7\n", "a PDF: convert it")]
)
def test_what_is_no_text_is_named_with_the_remedy(tmp_path, start, what):
    (tmp_path / "text").write_bytes(start + bytes(range(256)))
    with pytest.raises(PrepareError, match=f"text is {what}"):
        TextFile(tmp_path / "text")


def test_without_its_package_zstd_is_an_error_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "text.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(PrepareError, match="pip install zstandard"):
        TextFile(tmp_path / "text.zst")


def test_a_line_that_memory_may_not_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LONGEST_LINE", 1000)
    path = tmp_path / "text"
    path.write_bytes(b"a\n" + b"b" * 999 + b"\n" + b"c" * 999)
    assert len(lines(path)) == 3
    path.write_bytes(b"a\n" + b"b" * 1000)
    with pytest.raises(PrepareError, match="line 2: longer than"):
        lines(path)
    with pytest.raises(PrepareError, match="cannot read"):
        TextFile(tmp_path / "absent")
