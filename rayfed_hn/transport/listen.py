"""The server's end: streams over gRPC with mutual TLS.

gRPC's threads put what comes into one queue, and take what goes from one queue a stream; nothing
else happens in them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # who is refused is told by us, in a line
import grpc

from rayfed_hn.errors import ConfigError, MessageError
from rayfed_hn.transport.credentials import Credentials, site_named
from rayfed_hn.transport.frames import (
    GREETING_BYTES,
    PIECE_BYTES,
    Assembler,
    Ending,
    Frame,
    end,
    pieces,
)
from rayfed_hn.transport.links import Arrival, Closed, Opened, Received

SERVICE, METHOD = "rayfed_hn.Federation", "Join"
STOP_SECONDS = 5.0
_UNREAD = 2  # frames of a stream that wait for the server; whoever sends more has to wait
# Whoever vanishes without a word is noticed within half a minute.
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
SIZES = [
    ("grpc.max_receive_message_length", PIECE_BYTES),
    ("grpc.max_send_message_length", PIECE_BYTES),
]


class _Stream:
    """One stream of one site."""

    def __init__(self, site: str, limit: int) -> None:
        self.site, self.assembler = site, Assembler(limit)
        self.out: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self.room = threading.Semaphore(_UNREAD)
        self.open = True


class GrpcTransport:
    """A listening server; see ``links.Transport``.

    Args:
        address: ``host:port``; port 0 takes any.
        credentials: Of the server.
        sites: Whose certificates are let in.

    Attributes:
        port: That it listens on.

    Raises:
        ConfigError: It cannot listen there.
    """

    def __init__(self, address: str, credentials: Credentials, sites: Sequence[str]) -> None:
        self._sites, self._limit = frozenset(sites), GREETING_BYTES
        self._arrivals: queue.SimpleQueue[tuple[Arrival, _Stream]] = queue.SimpleQueue()
        self._streams: dict[str, _Stream] = {}
        self._told: dict[str, _Stream] = {}  # of which ``next`` has told
        self._lock = threading.Lock()
        # A stream takes one of these threads and one of its own; replaced ones end at once.
        most = 2 * len(self._sites) + 2
        self._server = grpc.server(
            ThreadPoolExecutor(most, thread_name_prefix="stream"),
            maximum_concurrent_rpcs=most,
            options=[
                *(*KEEPALIVE, *SIZES, ("grpc.so_reuseport", 0)),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        generic = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
        self._server.add_generic_rpc_handlers((generic,))
        own = [(credentials.key, credentials.certificate)]
        secure = grpc.ssl_server_credentials(own, credentials.authority, require_client_auth=True)
        try:
            self.port = self._server.add_secure_port(address, secure)
        except RuntimeError:
            raise ConfigError(
                f"--listen: {address} cannot be listened on; give an address of this machine and a "
                "port that is free"
            ) from None
        self._server.start()

    def next(self, timeout: float | None) -> Arrival | None:
        try:
            arrival, stream = self._arrivals.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(arrival, Received):
            stream.room.release()
        elif isinstance(arrival, Opened):
            self._told[stream.site] = stream
        else:
            del self._told[stream.site]
        return arrival

    def send(self, site: str, frame: Frame) -> None:
        stream = self._told.get(site)
        if stream is not None:
            stream.out.put(frame)

    def close(self, site: str) -> None:
        stream = self._told.get(site)
        if stream is not None:
            stream.out.put(None)
            self._closed(stream)

    def allow(self, num_bytes: int) -> None:
        self._limit = max(num_bytes, GREETING_BYTES)
        with self._lock:
            for stream in self._streams.values():
                stream.assembler.limit = self._limit

    def stop(self) -> None:
        """Close all streams, after what was sent, and listen no more."""
        with self._lock:
            left = list(self._streams.values())
        for stream in left:
            stream.out.put(None)
        self._server.stop(STOP_SECONDS).wait()

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        certificate = context.auth_context().get("x509_pem_cert", [b""])[0]
        site = site_named(certificate)
        if site not in self._sites:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the certificate is of no site here")
        assert site is not None
        stream = _Stream(site, self._limit)
        context.add_callback(lambda: stream.out.put(None))
        self._opened(stream)
        threading.Thread(target=self._read, args=(stream, requests), daemon=True).start()
        for frame in iter(stream.out.get, None):
            yield from pieces(frame)

    def _read(self, stream: _Stream, requests: Iterator[bytes]) -> None:
        fault = None
        try:
            for piece in requests:
                frame = stream.assembler.add(piece)
                if frame is not None:
                    stream.room.acquire()
                    self._put(stream, Received(stream.site, frame))
        except MessageError as error:
            fault = str(error)
        except Exception:  # gRPC says in many ways that a stream has ended
            pass
        finally:
            self._closed(stream, fault)
            stream.out.put(None)

    def _opened(self, stream: _Stream) -> None:
        with self._lock:
            before = self._streams.get(stream.site)
            if before is not None:
                before.out.put(end(Ending.REPLACED))
                before.out.put(None)
                self._end(before, None)
            self._streams[stream.site] = stream
            self._arrivals.put((Opened(stream.site), stream))

    def _put(self, stream: _Stream, arrival: Arrival) -> None:
        with self._lock:
            if stream.open:
                self._arrivals.put((arrival, stream))

    def _closed(self, stream: _Stream, fault: str | None = None) -> None:
        with self._lock:
            if stream.open:
                self._end(stream, fault)

    def _end(self, stream: _Stream, fault: str | None) -> None:
        stream.open = False
        if self._streams.get(stream.site) is stream:
            del self._streams[stream.site]
        self._arrivals.put((Closed(stream.site, fault), stream))
