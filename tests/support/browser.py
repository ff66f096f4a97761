"""A headless Chromium for the tests, driven over chromedriver's WebDriver protocol: JSON over HTTP, nothing to install
beside the two programs (Debian: `apt-get install chromium chromium-driver`).  https://www.w3.org/TR/webdriver2/"""
import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = " and ".join(name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not path)

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"      # the key of a reference to an element, fixed by the standard
_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


class Browser:
    """One session; `with Browser() as browser` ends both programs."""

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}"
        try:
            self._wait()
            options = {"binary": CHROMIUM, "args": _FLAGS}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.url += f"/session/{session['sessionId']}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error):
        try:
            self._ask("DELETE", "")
        finally:
            self._end()

    def open(self, path):
        """Load a file, as a double click on it would."""
        self._ask("POST", "/url", {"url": Path(path).resolve().as_uri()})

    def run(self, script, *args):
        """What the body of a JavaScript function returns; a promise is waited for."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def size(self, width, height):
        """A screen of that many CSS pixels: a window has a least width, which phones are below."""
        self._devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                       mobile=width < 600)

    def media(self, **features):
        """What the user prefers, as in media(prefers_color_scheme="dark")."""
        self._devtools("Emulation.setEmulatedMedia", features=[
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()])

    def click(self, selector, index=0):
        elements = self._ask("POST", "/elements", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{elements[index][_ELEMENT]}/click", {})

    def pointer(self, *actions, kind="mouse"):
        """The path of a mouse or, kind="touch", a finger: ("move", x, y), ("down",), ("up",), in CSS pixels."""
        steps = [{"type": f"pointer{what.title()}", "button": 0} if not place else
                 {"type": "pointerMove", "duration": 20, "x": round(place[0]), "y": round(place[1])}
                 for what, *place in actions]
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self._ask("POST", "/actions", {"actions": [source]})

    def key(self, *names):
        steps = [{"type": what, "value": name} for name in names for what in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    def console(self):
        """The messages since the last call, of level WARNING and above."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def screenshot(self, path, whole=False):
        """A PNG of the screen, or of the whole page."""
        picture = self._devtools("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(picture))

    def _devtools(self, command, **params):
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def _wait(self, seconds=20):
        for _ in range(10 * seconds):
            try:
                return self._ask("GET", "/status")
            except URLError:
                time.sleep(0.1)
        raise RuntimeError(f"{DRIVER} does not answer")

    def _ask(self, method, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            raise RuntimeError(f"{path}: {json.load(error)['value']['message']}") from None

    def _end(self):
        self.driver.terminate()
        self.driver.wait(20)
