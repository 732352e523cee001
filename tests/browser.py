"""Chromium without a window, told what to do through a pair of pipes (its DevTools protocol)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page in Chromium, until the end of the block."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        to_child, from_us = os.pipe()
        from_child, to_us = os.pipe()
        shell = f'exec "$0" "$@" 3<&{to_child} 4>&{to_us}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
            + ["--remote-debugging-pipe", f"--user-data-dir={folder}", "--mute-audio"]
            + ["--disable-dev-shm-usage", "about:blank"],
            pass_fds=(to_child, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(to_us)
        self._out, self._in = os.fdopen(from_us, "wb", 0), os.fdopen(from_child, "rb", 0)
        self._rest, self._number, self._session = b"", 0, None
        self.errors: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        self._in.close()
        self._process.kill()
        self._process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def evaluate(self, expression: str) -> Any:
        """Give the value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, page: Path, width: int = 1100, height: int = 900) -> None:
        """Show a page, and wait until its script says that it is ready."""
        self.size(width, height)
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.body && document.body.dataset.ready === 'true'")

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true."""
        last = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < last, f"never: {condition}"
            time.sleep(0.1)

    def click(self, selector: str, share: float = 0.5) -> None:
        """Press the mouse on an element, at a share of its width."""
        box = self.box(selector)
        x, y = box["x"] + share * box["width"], box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def wheel(self, selector: str, by: float, share: float = 0.5) -> None:
        """Turn the wheel over an element."""
        box = self.box(selector)
        x, y = box["x"] + share * box["width"], box["y"] + box["height"] / 2
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=by)

    def box(self, selector: str) -> dict[str, float]:
        found = self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return {x: b.x, y: b.y, width: b.width, height: b.height}; })()"
        )
        return dict(found)

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, *, whole: bool = False) -> bytes:
        """Give the page as a PNG file."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = self._in.read(1 << 16)
            assert data, "Chromium has gone"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))
