"""Compression of record batches, unpacked within a limit: a few kilobytes of a bomb would become gigabytes."""

from __future__ import annotations

import struct
import zlib
from typing import Final

__all__ = ["UNPACKED_BYTES", "compressed", "unpacked"]

UNPACKED_BYTES: Final = 64 << 20
"""What a batch may unpack to; the largest message of the default settings."""

_NAMES: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
_GZIP: Final = 31
_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_HEAD: Final = 16
_WINDOW: Final = 1 << 27
"""Largest window of zstd, which is memory too: that of its highest level."""
_PIECE: Final = 1 << 10
"""Bytes of zstd that are unpacked at once, which become 32 MiB at most."""


def compressed(codec: int, body: bytes) -> bytes:
    """The body, compressed as Kafka's codec of that number does."""
    from aiokafka import codec as codecs  # seldom needed, and a third of the start-up time

    packed: bytes = getattr(codecs, f"{_NAMES[codec]}_encode")(body)
    return packed


def unpacked(codec: int, body: bytes, most: int = UNPACKED_BYTES) -> bytes:
    """The body before it was compressed.

    Raises ValueError for an unknown codec, damage, and more than ``most`` bytes.
    """
    read = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}.get(codec)
    if read is None:
        raise ValueError(f"there is no codec {codec}")
    try:
        found = read(body, most)
    except ValueError:
        raise
    except Exception as error:  # the codecs share no exception type
        raise ValueError(f"{_NAMES[codec]}: {error!r}") from error
    if len(found) > most:
        raise ValueError(f"{_NAMES[codec]}: {len(body)} bytes that unpack to more than {most}")
    return found


def _gzip(body: bytes, most: int) -> bytes:
    found = bytearray()
    while body:  # members that follow one another
        member = zlib.decompressobj(_GZIP)
        found += member.decompress(body, most + 1 - len(found))
        if len(found) > most:
            break
        if not member.eof:
            raise ValueError("gzip: it ends inside a member")
        body = member.unused_data
    return bytes(found)


def _snappy(body: bytes, most: int) -> bytes:
    import cramjam

    def block(part: bytes) -> bytes:
        nonlocal most
        size = cramjam.snappy.decompress_raw_len(part)
        if size > most:
            raise ValueError(f"snappy: {len(part)} bytes that unpack to {size}, of which {most} may be")
        most -= size
        return bytes(cramjam.snappy.decompress_raw(part))

    if not body.startswith(_XERIAL):
        return block(body)
    parts, at = [], _XERIAL_HEAD
    while at < len(body):
        (size,) = struct.unpack_from(">i", body, at)
        if not 0 <= size <= len(body) - at - 4:
            raise ValueError(f"snappy: a block of {size} bytes in {len(body)}")
        parts.append(block(body[at + 4 : at + 4 + size]))
        at += 4 + size
    return b"".join(parts)


def _lz4(body: bytes, most: int) -> bytes:
    import cramjam

    size = 4 * len(body) + 1024
    while True:
        room = bytearray(min(size, most + 1))
        try:
            return bytes(memoryview(room)[: cramjam.lz4.decompress_into(body, room)])
        except cramjam.DecompressionError as error:
            # It does not say how much there is.
            if "whole buffer" not in str(error):
                raise
            if len(room) > most:
                raise ValueError(f"lz4: {len(body)} bytes that unpack to more than {most}") from None
        size *= 8


def _zstd(body: bytes, most: int) -> bytes:
    import zstandard

    found, rest = bytearray(), body
    while rest:  # frames that follow one another
        frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        for at in range(0, len(rest), _PIECE):
            found += frame.decompress(rest[at : at + _PIECE])
            if len(found) > most:
                return bytes(found)
            if frame.eof:
                rest = frame.unused_data + rest[at + _PIECE :]
                break
        else:
            raise ValueError("zstd: it ends inside a frame")
    return bytes(found)
