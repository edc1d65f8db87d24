"""A headless Chromium that tests drive over its debugging pipe, which needs no package."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """One tab. `console` and `requests` are what happened since the last page was opened, in frames of other processes too.

    `frames` are the sessions of those: frames with a sandbox, as in a notebook.
    """

    def __init__(self, commands: int, answers: int):
        self._commands, self._answers, self._numbers = commands, answers, itertools.count(1)
        self._buffer, self._session = b"", None
        self.frames: list[str] = []
        self.console: list[str] = []
        self.requests: list[str] = []
        self.events: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)

    def send(self, method: str, *, session: str | None = None, **params: Any) -> Any:
        """The result of a command of the DevTools protocol."""
        number, session = next(self._numbers), session or self._session
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while (answer := self._read()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page: Path, width: int = 1400, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Opens a page and waits until it has loaded, and with `script` until its script has run."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.console, self.requests, self.events, self.frames = [], [], [], []
        self.send("Page.navigate", url=page.as_uri())
        self._wait_for_load()
        for session in self.frames:
            for domain in ("Runtime", "Log", "Network"):  # which tells what happened before, too
                self.send(f"{domain}.enable", session=session)

    def follow(self, expression: str) -> None:
        """Evaluates an expression that leads to another page, and waits until that has loaded."""
        self.events = []
        self.evaluate(expression)
        self._wait_for_load()

    def _wait_for_load(self) -> None:
        while "Page.loadEventFired" not in self.events:
            self._note(self._read())

    def evaluate(self, expression: str, session: str | None = None) -> Any:
        """The value of an expression in the page or a frame, which may be a promise. Works without the page's consent."""
        found = self.send("Runtime.evaluate", session=session, expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Presses a key, such as "Tab" or "ArrowRight"."""
        codes = {"Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "End": 35, "Home": 36, " ": 32}
        named = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def click(self, selector: str) -> None:
        """Clicks the middle of an element, with the mouse."""
        place = (
            f"(e => (e.scrollIntoView({{block: 'center'}}), e.getBoundingClientRect()))(document.querySelector({selector!r}))"
        )
        x, y = self.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({place})")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Writes the whole page as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method", ""), event.get("params", {})
        self.events.append(method)
        if method == "Target.attachedToTarget":
            self.frames.append(params["sessionId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.console.append(params["entry"]["text"])


@contextlib.contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, which ends with the block."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    (theirs, commands), (answers, ours) = os.pipe(), os.pipe()
    line = f'exec "$@" 3<&{theirs} 4>&{ours}'
    arguments = ["bash", "-c", line, "bash", str(chromium), *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(arguments, pass_fds=(theirs, ours), stderr=subprocess.DEVNULL)
    os.close(theirs)
    os.close(ours)
    try:
        yield Browser(commands, answers)
    finally:
        os.close(commands)
        os.close(answers)
        process.terminate()
        process.wait(20)
