"""Federated averaging in Flower's simulation engine, inside Flower's own environment.

Chosen for speed, as its documentation has it: one CPU a client, so that there are as many workers
as processes are asked for; the message API with the built-in FedAvg on the model's state_dict;
no evaluation; model and bags resident in the workers instead of built by every call. ``flwr run``
ends in the same engine as ``run_simulation``, after a start of its own.

What remains is Flower's: messages are polled for every 0.1 s, at the server and for the workers,
which short rounds are made of; each message carries the model to a worker and back through Ray's
object store; and the search for a site's message passes over those of all sites, so that time
grows with the square of many sites.

    python benchmarks/rivals/flower_rounds.py [--sites 10] [--steps 0] [--rounds 5] [--processes 2]
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile

import measuring


def main() -> None:
    """Print the line of figures; Flower's own lines go to stderr."""
    options = measuring.read_options(__doc__, processes=2)
    with tempfile.TemporaryDirectory() as home:
        # Nothing is reported to anybody, and no file stays behind in the user's home.
        os.environ |= {
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "FLWR_HOME": home,
        }
        import flower_app  # Flower reads these variables when it is imported

        measured = flower_app.run(options)
    print(measuring.line("Flower", importlib.metadata.version("flwr"), options, measured))


if __name__ == "__main__":
    main()
