"""A headless Chromium, driven over its DevTools protocol: clicks, keys, screenshots, and everything it complains of."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0",
]  # fmt: skip


class Browser:
    """One page in one browser with a profile of its own.

    Attributes:
        complaints: console errors, exceptions and violated policies.
        requests: addresses that were asked for, the page's own included.
    """

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.complaints, self.requests = [], []
        self._ids = itertools.count(1)
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(self._address(), max_size=None))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _address(self):
        port_file = Path(self.profile, "DevToolsActivePort")
        for _ in range(300):
            if port_file.exists() and port_file.read_text().strip():
                break
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            return next(t["webSocketDebuggerUrl"] for t in json.load(answer) if t["type"] == "page")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open.close()
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **params):
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(params["args"]))

    def run(self, script):
        """The value of an expression in the page; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition, seconds=30):
        """Waits until an expression is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(f"(() => {{ try {{ return {condition} }} catch {{ return null }} }})()")):
            assert time.monotonic() < deadline, f"{condition} stayed {value!r}; {self.complaints}"
            time.sleep(0.05)
        return value

    def open(self, url, width=1280, height=900, theme="light", media=""):
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": theme}]
        )
        self.call("Page.navigate", url="about:blank")  # an address that differs in its fragment only loads nothing
        self.wait("location.href === 'about:blank'")
        self.call("Page.navigate", url=url)
        self.wait("document.documentElement.dataset.ready === 'yes'")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def click(self, selector):
        """A real click in the middle of an element."""
        target = json.dumps(selector)
        self.run(f"document.querySelector({target}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"document.querySelector({target}).getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def choose(self, selector, value):
        """Chooses an entry of a list, as a user's choice is announced to the page."""
        self.run(
            f"(() => {{ const list = document.querySelector({json.dumps(selector)}); list.value = {json.dumps(value)};"
            "list.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def key(self, key):
        for kind in ("keyDown", "keyUp"):
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = {"Enter": 13}.get(key, 0)
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                      text=text if kind == "keyDown" else "")  # fmt: skip

    def screenshot(self, path, whole=False):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = (
            {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 9000), "scale": 1}}
            if whole
            else {}
        )
        image = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)["data"]
        Path(path).write_bytes(base64.b64decode(image))
