"""Streams over gRPC with mutual TLS, on this machine: who is let in, and who is not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from apart import SITES, agent_of, config_of, serve, stores, together
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.transport import certificates
from rayfed_hn.transport import join as join_module
from rayfed_hn.transport.certificates import make_certificates
from rayfed_hn.transport.credentials import Credentials, site_named
from rayfed_hn.transport.dial import Refused, StreamLost, check_trust, stream
from rayfed_hn.transport.frames import PIECE_BYTES, Ending, Frame, Kind, end, read_end
from rayfed_hn.transport.join import join, stay
from rayfed_hn.transport.links import Closed, Opened, Received
from rayfed_hn.transport.listen import METHOD, SERVICE, GrpcTransport
from rayfed_hn.transport.site_agent import Reply

HERE = "127.0.0.1"
SECONDS = 20  # for anything, on a busy machine


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    make_certificates(folder, [*SITES, "stranger"], [HERE, "localhost"], days=2)
    make_certificates(folder / "other", SITES, [HERE], days=2)
    return folder


def credentials(pki: Path, stem: str, authority: str = "ca") -> Credentials:
    return Credentials.read(
        pki / f"{stem}.pem", pki / f"{stem}.key", (pki / authority).with_suffix(".pem")
    )


@pytest.fixture
def server(pki: Path) -> Iterator[GrpcTransport]:
    listening = GrpcTransport(f"{HERE}:0", credentials(pki, "server"), SITES)
    yield listening
    listening.stop()


def place(server: GrpcTransport) -> str:
    return f"{HERE}:{server.port}"


def nothing(server: GrpcTransport) -> None:
    assert server.next(0.2) is None


def test_frames_pass_both_ways_under_the_name_of_the_certificate(
    server: GrpcTransport, pki: Path
) -> None:
    payload = bytes(range(256)) * 20_000  # several pieces
    server.allow(len(payload))
    with stream(place(server), credentials(pki, "site-a"), len(payload)) as line:
        assert server.next(SECONDS) == Opened("a")
        server.admit("a")
        line.send(Frame(Kind.ANSWER, payload, 7))
        received = server.next(SECONDS)
        assert isinstance(received, Received)
        assert received.site == "a"
        assert received.frame == Frame(Kind.ANSWER, payload, 7)
        server.send("b", Frame(Kind.READY))  # who has no stream gets nothing
        server.send("a", Frame(Kind.TRAIN, payload, 8))
        assert line.receive() == Frame(Kind.TRAIN, payload, 8)
    assert server.next(SECONDS) == Closed("a")
    nothing(server)


def test_the_newer_stream_of_a_site_takes_the_place_of_the_older(
    server: GrpcTransport, pki: Path
) -> None:
    own = credentials(pki, "site-a")
    with stream(place(server), own, 2**16) as older:
        assert server.next(SECONDS) == Opened("a")
        with stream(place(server), own, 2**16) as newer:
            assert read_end(older.receive()) is Ending.REPLACED
            with pytest.raises(StreamLost):
                older.receive()
            server.send("a", Frame(Kind.READY))  # nobody was told of the newer one yet
            assert server.next(SECONDS) == Closed("a")
            assert server.next(SECONDS) == Opened("a")
            older.send(Frame(Kind.ANSWER, b"ghost", 1))
            newer.send(Frame(Kind.ANSWER, b"real", 1))
            received = server.next(SECONDS)
            assert isinstance(received, Received)
            assert received.frame.payload == b"real"
            nothing(server)
            server.send("a", Frame(Kind.TRAIN, b"x", 2))
            assert newer.receive().number == 2


def refused(server: GrpcTransport, own: Credentials, words: str) -> None:
    with stream(place(server), own, 2**16) as line:
        line.send(Frame(Kind.HELLO, b"hello"))
        with pytest.raises((StreamLost, Refused)):
            line.receive()
    if words:
        with pytest.raises(Refused, match=words):
            check_trust(place(server), own)
    nothing(server)


def test_a_certificate_of_another_authority_is_refused(server: GrpcTransport, pki: Path) -> None:
    own = credentials(pki, "other/site-a")  # with the right server's authority
    refused(server, own, "hangs up as soon as it has seen")


def test_a_server_of_another_authority_is_refused(server: GrpcTransport, pki: Path) -> None:
    own = credentials(pki, "site-a", "other/ca")
    refused(server, own, "the server's certificate is not the one of 127.0.0.1")


def test_a_site_cannot_pose_as_the_server(pki: Path) -> None:
    posing = GrpcTransport(f"{HERE}:0", credentials(pki, "site-b"), SITES)
    refused(posing, credentials(pki, "site-a"), "the server's certificate is not the one of")
    posing.stop()


@pytest.mark.parametrize("stem", ["server", "site-stranger"])
def test_a_certificate_that_names_no_site_of_the_run_is_refused(
    server: GrpcTransport, pki: Path, stem: str
) -> None:
    with stream(place(server), credentials(pki, stem), 2**16) as line:
        if stem == "server":  # it is for servers only, which TLS itself refuses
            with pytest.raises((Refused, StreamLost)):
                line.receive()
        else:
            with pytest.raises(Refused, match="no site here"):
                line.receive()
    nothing(server)


def test_nobody_gets_in_without_a_certificate_or_without_tls(
    server: GrpcTransport, pki: Path
) -> None:
    secure = grpc.ssl_channel_credentials((pki / "ca.pem").read_bytes())
    for channel in (
        grpc.secure_channel(place(server), secure),
        grpc.insecure_channel(place(server)),
    ):
        call: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter([b"x"]), timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as error:
            next(call)
        found: Any = error.value
        assert found.code() is grpc.StatusCode.UNAVAILABLE
        channel.close()
    nothing(server)


def raw(server: GrpcTransport, pki: Path, parts: list[bytes]) -> tuple[Any, grpc.Channel]:
    own = credentials(pki, "site-b")
    secure = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
    channel = grpc.secure_channel(place(server), secure, [("grpc.max_send_message_length", 2**26)])
    out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for part in parts:
        out.put(part)
    return channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter(out.get, None)), channel


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([b"no frame at all, in truth"], "not a frame of this protocol"),
        ([b"RFH1" + bytes([5, 0, 0, 0]) + bytes(8) + b"\xff" * 8], "at most 65,536 allowed"),
        ([bytes(PIECE_BYTES + 100)], None),  # gRPC itself takes no such message
    ],
)
def test_what_is_no_frame_closes_its_stream(
    server: GrpcTransport, pki: Path, parts: list[bytes], fault: str | None
) -> None:
    call, channel = raw(server, pki, parts)
    assert server.next(SECONDS) == Opened("b")
    closed = server.next(SECONDS)
    assert isinstance(closed, Closed)
    assert closed.site == "b"
    assert closed.fault is None if fault is None else fault in str(closed.fault)
    with pytest.raises((grpc.RpcError, StopIteration)):
        next(call)
    channel.close()
    nothing(server)


def test_who_floods_the_server_has_to_wait(server: GrpcTransport, pki: Path) -> None:
    with stream(place(server), credentials(pki, "site-a"), 2**16) as line:
        for number in range(50):
            line.send(Frame(Kind.ANSWER, bytes(2**15), number))
        assert server.next(SECONDS) == Opened("a")
        threading.Event().wait(0.5)
        assert server._arrivals.qsize() <= 2  # the rest is held back at the site
        found = [server.next(SECONDS) for _ in range(50)]
        assert [f.frame.number for f in found if isinstance(f, Received)] == list(range(50))


def test_who_dials_again_and_again_leaves_nothing_behind(server: GrpcTransport, pki: Path) -> None:
    for number in range(4):
        with stream(place(server), credentials(pki, "site-a"), 2**16) as line:
            for _ in range(9):
                line.send(Frame(Kind.ANSWER, bytes(2**15), number))
            threading.Event().wait(0.3)
    threading.Event().wait(0.3)
    found = []
    while (arrival := server.next(0.2)) is not None:
        found.append(arrival)
    assert found[:2] == [Opened("a"), Closed("a")]
    frames = [arrival.frame.number for arrival in found if isinstance(arrival, Received)]
    assert set(frames) <= {3}
    assert len(frames) <= 3  # two that wait, and one in the hand
    kept = [thread for thread in threading.enumerate() if "_read" in thread.name]
    assert len(kept) <= 1


def test_who_was_not_admitted_sends_no_long_frames(server: GrpcTransport, pki: Path) -> None:
    server.allow(2**20)
    with stream(place(server), credentials(pki, "site-a"), 2**16) as line:
        line.send(Frame(Kind.ANSWER, bytes(2**17), 1))
        assert server.next(SECONDS) == Opened("a")
        closed = server.next(SECONDS)
        assert isinstance(closed, Closed)
        assert "at most 65,536 allowed" in str(closed.fault)


def test_a_site_that_reads_nothing_keeps_nobody_out(server: GrpcTransport, pki: Path) -> None:
    own = credentials(pki, "site-a")
    secure = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
    channels: list[grpc.Channel] = []
    calls: list[Any] = []
    for number in range(12):
        options = [("grpc.use_local_subchannel_pool", 1), ("number", number)]
        channels.append(grpc.secure_channel(place(server), secure, options))
        out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        calls.append(channels[-1].stream_stream(f"/{SERVICE}/{METHOD}")(iter(out.get, None)))
        arrival = server.next(2)
        while arrival is not None and not isinstance(arrival, Opened):
            arrival = server.next(2)
        server.send("a", Frame(Kind.TRAIN, bytes(2**24), 1))  # more than gRPC takes unread
        threading.Event().wait(0.05)
    with stream(place(server), credentials(pki, "site-b"), 2**16):
        arrival = server.next(SECONDS)
        while arrival is not None and arrival != Opened("b"):
            arrival = server.next(SECONDS)
        assert arrival == Opened("b")
    for channel in channels:
        channel.close()


def test_a_port_that_is_taken_is_named(server: GrpcTransport, pki: Path) -> None:
    with pytest.raises(ConfigError, match=f"^--listen: {HERE}:{server.port} cannot"):
        GrpcTransport(place(server), credentials(pki, "server"), SITES)


def test_certificates_say_who_one_is_and_keys_are_private(pki: Path, tmp_path: Path) -> None:
    assert credentials(pki, "site-a").site == "a"
    assert "PRIVATE" not in repr(credentials(pki, "site-a"))
    with pytest.raises(ConfigError, match="it names no site"):
        _ = credentials(pki, "server").site
    assert site_named(b"nonsense") is None
    assert {path.stat().st_mode & 0o777 for path in pki.glob("*.key")} == {0o600}
    with pytest.raises(ConfigError, match="is there already"):
        make_certificates(pki, ["a"], [], days=2)
    (made,) = make_certificates(pki, ["later"], [], days=2)  # by the authority that is there
    authority = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    x509.load_pem_x509_certificate(made.read_bytes()).verify_directly_issued_by(authority)
    open_key = tmp_path / "open.key"
    open_key.write_bytes((pki / "site-a.key").read_bytes())
    open_key.chmod(0o640)
    with pytest.raises(ConfigError, match=r"--key: others may read .*chmod 600"):
        Credentials.read(pki / "site-a.pem", open_key, pki / "ca.pem")
    with pytest.raises(ConfigError, match=r"--certificate: .* holds no PEM"):
        Credentials.read(pki / "site-a.key", pki / "site-a.key", pki / "ca.pem")
    with pytest.raises(ConfigError, match=r"--ca: .*none\.pem cannot be read"):
        Credentials.read(pki / "site-a.pem", pki / "site-a.key", pki / "none.pem")


def test_keys_that_do_not_fit_are_named_before_anything_is_dialled(
    pki: Path, tmp_path: Path
) -> None:
    junk, locked = tmp_path / "junk.key", tmp_path / "locked.key"
    junk.write_bytes(b"junk")
    key = serialization.load_pem_private_key((pki / "site-a.key").read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for path, words in (
        (pki / "site-b.key", r"site-b\.key is not the key of .*site-a\.pem"),
        (junk, r"junk\.key holds no PEM private key"),
        (locked, r"locked\.key is encrypted"),
    ):
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=f"^--key: .*{words}"):
            Credentials.read(pki / "site-a.pem", path, pki / "ca.pem")


def test_no_key_is_written_for_a_probe(
    server: GrpcTransport, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr("tempfile.mkdtemp", lambda *words, **more: made.append(words))
    check_trust(place(server), credentials(pki, "site-a"))
    with pytest.raises(Refused, match="hangs up"):
        check_trust(place(server), credentials(pki, "other/site-a"))
    assert made == []


@pytest.mark.parametrize("left", ["ca.key", "site-b.key", "server.pem"])
def test_what_is_there_is_not_written_over(tmp_path: Path, left: str) -> None:
    path = tmp_path / left
    if left != "ca.key":
        make_certificates(tmp_path, ["a"], [], days=1)
    path.write_bytes(b"of somebody")
    before = {found: found.read_bytes() for found in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=rf"^FOLDER: .*{left} is there already"):
        make_certificates(tmp_path, ["b"], ["localhost"], days=1)
    assert {found: found.read_bytes() for found in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a" * 60, "\x00"])
def test_names_that_are_of_no_site(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--sites: got"):
        make_certificates(tmp_path, [name], [], 1)
    authority = certificates._Authority.make(tmp_path, 1)
    if len(name) < 59:
        authority.issue(tmp_path / "odd", f"site={name}", [], 1)
        assert site_named((tmp_path / "odd.pem").read_bytes()) is None
    authority.issue(tmp_path / "plain", "north", [], 1)
    assert site_named((tmp_path / "plain.pem").read_bytes()) is None


def test_the_run_over_grpc_is_the_run_in_process(
    pki: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = stores(tmp_path_factory.mktemp("over-grpc"))
    listening = GrpcTransport(f"{HERE}:0", credentials(pki, "server"), SITES)
    found: dict[str, Any] = {}

    def take_part(site: str) -> None:
        agent = agent_of(root, tmp_path, site)
        own, folder = credentials(pki, f"site-{site}"), tmp_path / f"run-{site}"
        found[site] = join(agent, f"localhost:{listening.port}", own, 60, folder, str)

    threads = [threading.Thread(target=take_part, args=(site,)) for site in SITES]
    for thread in threads:
        thread.start()
    try:
        summary = serve(listening, tmp_path, ())  # type: ignore[arg-type]
    finally:
        listening.stop()
    for thread in threads:
        thread.join(SECONDS)
    assert summary["digest"] == together(root).digest
    assert summary["exit_code"] == 0
    for site in SITES:
        assert (found[site]["status"], found[site]["exit_code"]) == ("complete", 0)


class Forever:
    """An agent that only greets."""

    limit = 2**16

    def hello(self) -> Frame:
        return Frame(Kind.HELLO, b"")


def test_a_site_gives_up_a_server_that_is_not_there(pki: Path) -> None:
    told: list[str] = []
    own: Any = Forever()
    with pytest.raises(FederationError, match=r"could not be reached for 1 s .*run\.resume=true"):
        stay(own, f"{HERE}:9", credentials(pki, "site-a"), 1.0, told.append)
    assert len(told) == 1  # the same reason is told once
    assert f"no stream to {HERE}:9" in told[0]


def test_however_long_a_stream_was_open_the_site_dials_again(
    pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_module, "FIRST_PAUSE", 0.01)
    listening = GrpcTransport(f"{HERE}:0", credentials(pki, "server"), SITES)
    own: Any = Forever()
    own.take = lambda frame: Reply(ended=frame.kind is Kind.END)
    words = own, place(listening), credentials(pki, "site-a"), 0.3, str
    site = threading.Thread(target=stay, args=words)
    site.start()
    for frame in (Frame(Kind.READY), end(Ending.FINISHED)):
        assert listening.next(SECONDS) == Opened("a")
        assert isinstance(listening.next(SECONDS), Received)
        listening.send("a", frame)
        threading.Event().wait(0.5)  # longer than its patience
        listening.close("a")
        assert listening.next(SECONDS) == Closed("a")
    site.join(SECONDS)
    assert not site.is_alive()
    listening.stop()


def test_a_site_with_a_wrong_certificate_ends_at_once(server: GrpcTransport, pki: Path) -> None:
    own: Any = Forever()
    for wrong in (credentials(pki, "other/site-a"), credentials(pki, "site-stranger")):
        with pytest.raises(ConfigError, match=r"hangs up|no site here"):
            stay(own, place(server), wrong, 100.0, str)


def test_the_end_reaches_a_site_before_its_stream_is_closed(
    server: GrpcTransport, pki: Path
) -> None:
    with stream(place(server), credentials(pki, "site-a"), 2**16) as line:
        assert server.next(SECONDS) == Opened("a")
        server.send("a", end(Ending.FINISHED))
        server.close("a")
        assert read_end(line.receive()) is Ending.FINISHED
        with pytest.raises(StreamLost):
            line.receive()


def test_settings_that_differ_end_a_site_with_the_key(
    server: GrpcTransport, pki: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = stores(tmp_path_factory.mktemp("differ"))
    agent = agent_of(root, tmp_path, "a", ("privacy.noise_scale=0.5",))

    def serving() -> None:
        with pytest.raises(FederationError, match="b did not join"):
            serve(server, tmp_path, ("resources.node_limit=3",))  # type: ignore[arg-type]

    thread = threading.Thread(target=serving)
    thread.start()
    with pytest.raises(ConfigError, match=r"^privacy\.noise_scale: 0\.5 here"):
        join(agent, place(server), credentials(pki, "site-a"), 20, tmp_path / "run-a", str)
    thread.join(SECONDS)
    assert config_of().privacy.noise_scale == 0
