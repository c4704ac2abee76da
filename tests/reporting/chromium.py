"""A Chromium without a window, driven over a pipe: what pages do and look like in a real browser.

Messages are those of the DevTools protocol, JSON with a zero byte after each.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "google-chrome", "chromium-browser")
_WAIT = 30.0  # seconds for one answer; a busy machine is no failure
_FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--hide-scrollbars", "--disable-gpu"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--disable-sync", "--no-proxy-server"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing outside can be reached
)
# The browser reads commands from file 3 and answers to file 4.
_START = (
    "import os, sys\n"
    "for i in (1, 2):\n"
    "    os.dup2(int(sys.argv[i]), 2 + i)\n"
    "os.execvp(sys.argv[3], sys.argv[3:])"
)


def program() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser has refused a command, or does not answer."""


class Browser:
    """One process of the browser; ``close`` ends it.

    Args:
        path: The program.
        folder: For its profile and its log.
    """

    def __init__(self, path: str, folder: Path) -> None:
        self._log = folder / "browser.log"
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        command = (path, *_FLAGS, *root, f"--user-data-dir={folder / 'profile'}", "about:blank")
        start = (sys.executable, "-c", _START, str(theirs_in), str(theirs_out))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*start, *command],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that the end takes all of its processes
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Give a command and return its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _WAIT
        while (answer := self._receive(deadline)).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event of a tab, unless it has been already."""
        deadline = time.monotonic() + _WAIT
        while not any(e["method"] == method for e in self.of(session)):
            self.events.append(self._receive(deadline))

    def of(self, session: str) -> list[dict[str, Any]]:
        """Return the events of a tab."""
        return [event for event in self.events if event.get("sessionId") == session]

    def close(self) -> None:
        """End the browser and all of its processes."""
        try:
            self.call("Browser.close")
            self._process.wait(timeout=10)
        except (BrowserError, OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                said = self._log.read_text(errors="replace")[-2000:]
                raise BrowserError(f"{'it has ended' if ready else 'no answer'}; it said: {said}")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


class Tab:
    """A page that was opened from a file, in a window of its own.

    Args:
        browser: Where to open it.
        path: The file.
        width: Of the window, in pixels.
        dark: Whether the reader prefers dark pages.
    """

    def __init__(self, browser: Browser, path: Path, *, width: int = 1280, dark: bool = False):
        self._browser, self.url = browser, path.resolve().as_uri()
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._target, self._session = target, attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.resize(width)
        self.prefer(dark=dark)
        browser.events.clear()
        self._call("Page.navigate", url=self.url)
        browser.wait_for("Page.loadEventFired", self._session)

    def resize(self, width: int, height: int = 800) -> None:
        """Make the window that wide and high, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, *, dark: bool, medium: str = "screen") -> None:
        """Let the reader prefer dark pages or light ones, on screen or in print."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=medium, features=[feature])

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        """Return a PNG of the window, or of the whole page."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"] if whole else None
        clip = {"clip": {**size, "scale": 1}} if size else {}
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """Return the page as it prints, on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self._call("Page.printToPDF", **paper)["data"])

    def complaints(self) -> list[str]:
        """Return what the page has said on the console, and what has failed in it."""
        found = []
        for event in self._browser.of(self._session):
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(f"exception: {params['exceptionDetails']['text']}")
            elif event["method"] == "Runtime.consoleAPICalled":
                said = (str(a.get("value", a.get("description"))) for a in params["args"])
                found.append(f"console.{params['type']}: {' '.join(said)}")
            elif event["method"] == "Log.entryAdded":
                found.append(f"log: {params['entry']['text']}")
        return found

    def requests(self) -> list[str]:
        """Return what the page has asked for beside itself; what it holds in itself is none."""
        asked = (
            event["params"]["request"]["url"]
            for event in self._browser.of(self._session)
            if event["method"] == "Network.requestWillBeSent"
        )
        return [url for url in asked if url != self.url and not url.startswith("data:")]

    def close(self) -> None:
        """Close the page."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, session=self._session, **params)


def _pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe, out of the way of files 3 and 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
