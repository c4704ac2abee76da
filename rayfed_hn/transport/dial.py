"""A site's end: dials the server over mutual TLS, and holds one stream."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what is wrong is told by us, in a line
import grpc

from rayfed_hn.transport.credentials import Credentials
from rayfed_hn.transport.frames import Assembler, Frame, pieces
from rayfed_hn.transport.listen import KEEPALIVE, METHOD, SERVICE, SIZES

PROBE_SECONDS = 5.0
_PROBES, _PROBE_PAUSE = 3, 0.3  # a server that is being started anew may hang up once


class StreamLost(Exception):
    """There is no stream any more, or never was; its text says why, as gRPC has it."""


class Refused(Exception):
    """One side does not take the other's certificate: to try again is no use."""


class Stream:
    """Frames to and from the server.

    Args:
        call: The stream as gRPC has it.
        out: What it sends from.
        limit: Bytes of the longest frame that may come.
    """

    def __init__(self, call: Any, out: queue.SimpleQueue[bytes | None], limit: int) -> None:
        self._call, self._out, self._assembler = call, out, Assembler(limit)

    def send(self, frame: Frame) -> None:
        """Send a frame, without waiting."""
        for piece in pieces(frame):
            self._out.put(piece)

    def receive(self) -> Frame:
        """Wait for the next frame.

        Raises:
            StreamLost: None will come.
            MessageError: What came is none.
        """
        while True:
            try:
                piece = next(self._call)
            except StopIteration:
                raise StreamLost("the server closed the stream") from None
            except grpc.RpcError as error:
                call: Any = error
                if call.code() is grpc.StatusCode.PERMISSION_DENIED:
                    raise Refused(call.details()) from None
                raise StreamLost(f"{call.code().name.lower()}: {call.details()}") from None
            frame = self._assembler.add(piece)
            if frame is not None:
                return frame

    def finish(self) -> None:
        """Say no more, and wait until what was sent is there."""
        self._out.put(None)
        with suppress(StreamLost, Refused):
            while True:
                self.receive()


@contextmanager
def stream(address: str, credentials: Credentials, limit: int) -> Iterator[Stream]:
    """A stream to ``host:port``, which may turn out not to be there when it is used."""
    secure = grpc.ssl_channel_credentials(
        credentials.authority, credentials.key, credentials.certificate
    )
    out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    channel = grpc.secure_channel(address, secure, [*KEEPALIVE, *SIZES])
    call = channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter(out.get, None))
    try:
        yield Stream(call, out, limit)
    finally:
        out.put(None)
        call.cancel()
        channel.close()


def check_trust(address: str, credentials: Credentials) -> None:
    """Find out whether it is for the certificates that no stream comes to be.

    Raises:
        Refused: It is; says whose.
    """
    for _ in range(_PROBES):
        if not _is_shut_out(address, credentials):
            return
        time.sleep(_PROBE_PAUSE)
    raise Refused(
        "the server hangs up as soon as it has seen this certificate; is it of an authority that "
        "the server takes (its --ca), for clients, and still good?"
    )


def _is_shut_out(address: str, credentials: Credentials) -> bool:
    """Whether the server, whose certificate is right, ends a connection before it says a word."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with (
            socket.create_connection((host, int(port)), PROBE_SECONDS) as plain,
            _context(credentials).wrap_socket(plain, server_hostname=host) as secure,
        ):
            return secure.recv(1) == b""  # in TLS 1.3 a client learns only now that it is refused
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"the server's certificate is not the one of {host}: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)
    except ConnectionResetError:
        return True
    except OSError:
        return False  # it cannot be reached: that may change


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.authority.decode())
    context.set_alpn_protocols(["h2"])
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)  # no stricter than gRPC is
    certificate, key = credentials.files  # the standard library takes files only
    context.load_cert_chain(certificate, key, password="")  # and would ask for one
    return context
