"""The server's end: streams over gRPC with mutual TLS.

gRPC's threads put what comes into one queue, and take what goes from one queue a stream; nothing
else happens in them.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
_GRACE_SECONDS = 5.0  # that a site has to read what was sent before its stream was closed
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
    """One stream of one site.

    Attributes:
        received: Frames that nobody has asked for yet.
        room: For more of them.
        open: Whether anything may still come of it.
        admitted: Whether it may send more than greetings.
    """

    def __init__(self, site: str, context: Any) -> None:
        self.site, self.assembler, self._context = site, Assembler(GREETING_BYTES), context
        self.received: deque[Frame] = deque()
        self.admitted = False
        self.out: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self.room = threading.Semaphore(_UNREAD)
        self.open = True
        context.add_callback(lambda: self.out.put(None))

    def end_soon(self) -> None:
        """End after what was sent; without waiting for whoever reads nothing."""
        self.out.put(None)
        timer = threading.Timer(_GRACE_SECONDS, self._context.cancel)
        timer.daemon = True
        timer.start()
        if not self._context.add_callback(timer.cancel):
            timer.cancel()

    def cancel(self) -> None:
        """End now, and forget what came."""
        self.received.clear()
        self._context.cancel()


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
        # What has happened to which stream; None: it has received something.
        self._arrivals: queue.SimpleQueue[tuple[Opened | Closed | None, _Stream]] = (
            queue.SimpleQueue()
        )
        self._streams: dict[str, _Stream] = {}
        self._before: dict[str, _Stream] = {}  # of every site the last one that has ended
        self._told: dict[str, _Stream] = {}  # of which ``next`` has told
        self._lock = threading.Lock()
        # A stream takes one of these threads and one of its own. A site has one stream and another
        # that ends soon; any others end as fast as they come.
        most = 3 * len(self._sites) + 2
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
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                arrival, stream = self._arrivals.get(timeout=left)
            except queue.Empty:
                return None
            if isinstance(arrival, Opened):
                self._told[stream.site] = stream
            elif isinstance(arrival, Closed):
                del self._told[stream.site]
            else:
                with suppress(IndexError):  # it was forgotten
                    frame = stream.received.popleft()
                    stream.room.release()
                    return Received(stream.site, frame)
                continue
            return arrival

    def send(self, site: str, frame: Frame) -> None:
        stream = self._told.get(site)
        if stream is not None:
            stream.out.put(frame)

    def close(self, site: str) -> None:
        stream = self._told.get(site)
        if stream is not None:
            self._closed(stream)

    def admit(self, site: str) -> None:
        stream = self._told.get(site)
        if stream is not None:
            stream.admitted, stream.assembler.limit = True, self._limit

    def allow(self, num_bytes: int) -> None:
        self._limit = max(num_bytes, GREETING_BYTES)
        for stream in self._told.values():
            if stream.admitted:
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
        stream = _Stream(site, context)
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
                    if not self._put(stream, frame):
                        break
        except MessageError as error:
            fault = str(error)
        except Exception:  # gRPC says in many ways that a stream has ended
            pass
        finally:
            self._closed(stream, fault)

    def _opened(self, stream: _Stream) -> None:
        with self._lock:
            if stream.site in self._before:
                self._before.pop(stream.site).cancel()
            before = self._streams.get(stream.site)
            if before is not None:
                before.out.put(end(Ending.REPLACED))
                self._end(before, None)
                before.received.clear()
            self._streams[stream.site] = stream
            self._arrivals.put((Opened(stream.site), stream))

    def _put(self, stream: _Stream, frame: Frame) -> bool:
        """Whether anybody will look at it."""
        with self._lock:
            if stream.open:
                stream.received.append(frame)
                self._arrivals.put((None, stream))
            return stream.open

    def _closed(self, stream: _Stream, fault: str | None = None) -> None:
        with self._lock:
            if stream.open:
                self._end(stream, fault)

    def _end(self, stream: _Stream, fault: str | None) -> None:
        stream.open = False
        if self._streams.get(stream.site) is stream:
            del self._streams[stream.site]
            self._before[stream.site] = stream
        stream.room.release()  # for who waits to say more
        stream.end_soon()
        self._arrivals.put((Closed(stream.site, fault), stream))
