"""Headless Chromium, driven over the pipe of its DevTools protocol: no driver and no further package is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe",
    "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage", "--mute-audio",
)  # fmt: skip
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9,
        "Home": 36, "End": 35, "PageUp": 33, "PageDown": 34, " ": 32}  # fmt: skip
LIMIT = 60.0  # seconds for an answer


def chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one page; a context manager.

    Args:
        executable: path of Chromium.
    """

    def __init__(self, executable: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="chromium")
        read, self.to_browser = os.pipe()
        self.from_browser, write = os.pipe()
        # Chromium reads commands from file 3 and writes answers to file 4; bash, since sh may not know files above 9
        command = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, executable, *ARGUMENTS, f"--user-data-dir={self.folder}"],
            pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self.number, self.session, self.rest = 0, "", b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "DOM"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.to_browser)
        self.process.terminate()
        self.process.wait(10)
        os.close(self.from_browser)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + LIMIT
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.from_browser], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self.from_browser, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError(f"the browser gave no answer in {LIMIT:.0f} s")
            self.rest += part
        answer, self.rest = self.rest.split(b"\0", 1)
        return dict(json.loads(answer))

    def open(self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a page in a window of a size, and wait until it is drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        self.events.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete' && document.querySelector('#map > *') !== null")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + LIMIT
        while not self.run(condition):
            if time.monotonic() > end:
                raise RuntimeError(f"not true within {LIMIT:.0f} s: {condition}; {self.errors()}")
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def errors(self) -> list[str]:
        """The exceptions that the page's scripts threw since it was opened."""
        self.run("0")  # events come before the answer
        thrown = [x["params"]["exceptionDetails"] for x in self.events if x.get("method") == "Runtime.exceptionThrown"]
        return [x.get("exception", {}).get("description", x["text"]) for x in thrown]

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a reader does."""
        for key in keys:
            shift = key.startswith("Shift+")
            name = key.removeprefix("Shift+")
            about = {
                "key": name, "code": "Space" if name == " " else name, "windowsVirtualKeyCode": KEYS[name],
                "modifiers": 8 if shift else 0,
            }  # fmt: skip
            text = {" ": " ", "Enter": "\r"}.get(name)
            self.call(
                "Input.dispatchKeyEvent",
                type="keyDown" if text else "rawKeyDown",
                **about,
                **({"text": text} if text else {}),
            )
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def move(self, x: float, y: float) -> None:
        """Point with the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def set_files(self, selector: str, *files: Path) -> None:
        """Choose files in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file.resolve()) for file in files])

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Write a screenshot, of the window or the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, optimizeForSpeed=False)["data"]
        file.write_bytes(base64.b64decode(data))
