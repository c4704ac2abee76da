"""The commands of a federation whose sites are elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rayfed_hn.cli_runs import help_of

_KEYS = (
    *("task.", "method.", "hypernetwork.", "rounds.", "simulation.", "training.", "model."),
    *("privacy.", "evaluation.", "run.", "data.positive_label", "data.fold", "data.max_"),
    *("resources.node_", "resources.site_restarts"),
)
_WORDS = click.argument("words", nargs=-1, metavar="[CONFIG.yaml] [section.key=value ...]")


def _secured(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options without which nobody talks to anybody."""
    for name, about in (
        ("--ca", "PEM of the authorities that the other side's certificate may be of."),
        ("--key", "PEM of the private key; nobody else may read it."),
        ("--certificate", "PEM of one's own certificate."),
    ):
        kind = click.Path(path_type=Path, dir_okay=False)
        function = click.option(name, type=kind, required=True, help=about)(function)
    return function


def _names(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@click.command()
@_WORDS
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where sites dial in.")
@click.option(
    "--sites", required=True, metavar="A,B,...", callback=_names, help="Who takes part, by name."
)
@_secured
def serve(
    words: tuple[str, ...],
    listen: str,
    sites: tuple[str, ...],
    certificate: Path,
    key: Path,
    ca: Path,
) -> int:
    """Run the server of a federation whose sites are at their hospitals; it has no bags.

    Waits until every one of --sites has dialled in with 'rayfed-hn join', by a certificate whose
    common name is site=NAME, and trains as 'rayfed-hn train' does: the same loop, the same run
    directory, the same digest. Mutual TLS always. A site that goes away is waited for
    (resources.node_wait), then done without until it is back, and given up after
    resources.node_limit.

    Both sides need the same configuration, with task.classes (or task.cuts) in it: a site leaves if
    a setting differs from its own. An interrupted run goes on with run.resume=true; sites dial
    again by themselves. Exit codes are those of train.
    """
    from rayfed_hn.verbs import transport

    return transport.serve(words, listen, sites, transport.Files(certificate, key, ca))


serve.help = help_of(
    serve.callback,
    "rayfed-hn certificates pki --sites north,south --server server.example\n"
    "  rayfed-hn serve study.yaml --listen 0.0.0.0:8443 --sites north,south \\\n"
    "    --certificate pki/server.pem --key pki/server.key --ca pki/ca.pem",
    _KEYS,
)


@click.command()
@_WORDS
@click.option("--server", required=True, metavar="HOST:PORT", help="Where the server listens.")
@_secured
def join(words: tuple[str, ...], server: str, certificate: Path, key: Path, ca: Path) -> int:
    """Take part in a federation as one site, with bags that stay on this machine.

    Dials the server and stays in touch until the run has ended; nothing has to be open to the
    outside. Which site this is says its certificate (common name site=NAME); data.bags has its
    bags. The server is told how many bags of which class there are, then what training, mechanism
    and readout release (docs/beyond.md). The privacy ledger lies beside the bags.

    Ends with 2, before anything was trained, if a certificate does not fit or a setting of the
    server differs from the configuration here, and names it. A broken line is dialled again, up to
    resources.node_limit; a process that died goes on with run.dir=... run.resume=true.
    """
    from rayfed_hn.verbs import transport

    return transport.join(words, server, transport.Files(certificate, key, ca))


join.help = help_of(
    join.callback,
    "rayfed-hn join study.yaml data.bags=bags --server server.example:8443 \\\n"
    "    --certificate pki/site-north.pem --key pki/site-north.key --ca pki/ca.pem",
    ("data.bags", *_KEYS, "resources.gpus_per_site"),
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER")
@click.option("--sites", default="", metavar="A,B,...", callback=_names, help="Names of sites.")
@click.option(
    "--server",
    default="",
    metavar="HOST,...",
    callback=_names,
    help="Host names or addresses that the server is reached by.",
)
@click.option(
    "--days",
    default=90,
    show_default=True,
    type=click.IntRange(1, 3650),
    help="That they are good for.",
)
def certificates(folder: Path, sites: tuple[str, ...], server: tuple[str, ...], days: int) -> int:
    """Make a private authority and certificates in FOLDER, to try serve and join out.

    Written are ca.pem, server.pem and site-NAME.pem with their .key files, which only their owner
    can read. Given again with other names, the authority that is there makes more. For patients'
    data use an authority of your own: whoever has ca.key can be any site, and the server.
    """
    from rayfed_hn.verbs import transport

    return transport.certificates(folder, sites, server, days)


certificates.help = (
    f"{inspect.cleandoc(certificates.callback.__doc__ or '')}\n\n\b\n"
    "Example:\n  rayfed-hn certificates pki --sites north,south --server localhost,127.0.0.1"
)
