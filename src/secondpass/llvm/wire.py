"""Messages between processes: a socket, and before each message its length."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

HEADER = struct.Struct("<I")


def receive(connection: socket.socket, size: int) -> bytes | None:
    """Exactly `size` bytes; None at the end of the stream."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def messages(connection: socket.socket) -> Iterator[bytes]:
    """All that come, until the end of the stream."""
    while (header := receive(connection, HEADER.size)) is not None:
        message = receive(connection, HEADER.unpack(header)[0])
        if message is None:
            return
        yield message


def send(connection: socket.socket, message: bytes) -> None:
    """Send one."""
    connection.sendall(HEADER.pack(len(message)) + message)
