"""Headless Chromium, and the playground page as its user sees it."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, sync_playwright

WAIT_SECONDS = 60.0  # for a whole request on a busy machine

_DROP = """([selector, name, content]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
    for (const type of ["dragover", "drop"]) {
        const event = new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true });
        document.querySelector(selector).dispatchEvent(event);
    }
}"""
_PASTE = """([selector, name, content]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([bytes], name, { type: "image/png" }));
    const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
    document.querySelector(selector).focus();
    document.activeElement.dispatchEvent(event);
}"""
# Each state of the progress, also those between two looks of the test: [steps done, text, speed].
_RECORD_PROGRESS = """() => {
    const text = (id) => document.getElementById(id).textContent;
    window.recorded = [];
    new MutationObserver(() => {
        const bar = document.getElementById("progress-bar");
        const steps = bar.hasAttribute("value") ? bar.value : null;
        window.recorded.push([steps, text("progress-state"), text("progress-speed")]);
    }).observe(document.getElementById("progress"), { subtree: true, attributes: true, childList: true });
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Raises FileNotFoundError if it is not installed."""
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root in a container.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Playground:
    """The page in a tab. `requests`: all that it sent; `failures`: uncaught errors and violations of its policy."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.requests: list[Request] = []
        self.failures: list[str] = []
        page.set_default_timeout(1000 * WAIT_SECONDS)
        page.on("request", lambda sent: self.requests.append(sent))
        page.on("pageerror", lambda error: self.failures.append(str(error)))
        page.on("console", self._note_violation)
        self.open()

    def _note_violation(self, line: ConsoleMessage) -> None:
        if "Policy" in line.text:
            self.failures.append(line.text)

    def open(self) -> None:
        """Load the page, and wait until it shows a request as code."""
        self.page.goto(f"{self.url}/")
        self.page.locator("#snippet:not(:empty)").wait_for()

    def field(self, path: str) -> Locator:
        """The part of the form for a field of the request, e.g. `prompt` or `loras[1].scale`."""
        found = self.page.locator("#request")
        for part in path.split("."):
            name, _, index = part.rstrip("]").partition("[")
            found = found.locator(f"[data-field={name}]")
            if index:
                found = found.locator(".item").nth(int(index))
        return found

    def fill(self, **values: str) -> None:
        """Type into fields. In the names, `loras__1__scale` is `loras[1].scale`."""
        for name, value in values.items():
            head, *rest = name.split("__")
            path = head + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in rest)
            self.field(path).locator("input:not([type=range]):not([type=file]), textarea").fill(value)

    def drop(self, content: bytes, selector: str, name: str = "picture.png") -> None:
        """Drop a PNG file on an element."""
        self.page.evaluate(_DROP, [selector, name, base64.b64encode(content).decode()])

    def paste(self, content: bytes, selector: str) -> None:
        """Paste a PNG file while an element has the focus."""
        self.page.evaluate(_PASTE, [selector, "pasted.png", base64.b64encode(content).decode()])

    def record_progress(self) -> None:
        self.page.evaluate(_RECORD_PROGRESS)

    def recorded(self) -> list[tuple[float | None, str, str]]:
        """Each state of the progress since `record_progress`: steps done, text, speed."""
        return [tuple(state) for state in self.page.evaluate("window.recorded")]

    def generate(self) -> None:
        self.page.locator("#generate").click()

    def wait_until(self, holds: Callable[[], object]) -> None:
        """Poll. The page's own policy forbids playwright's `wait_for_function`, which needs `eval`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert time.monotonic() < deadline, self.text("#request")
            self.page.wait_for_timeout(20)

    def wait_result(self) -> dict[str, Any]:
        """Wait until the request has ended well. Returns its entry in the session: `input` and `output`."""
        self.wait_until(lambda: self.page.locator("#generate").is_visible())
        assert not self.page.locator("#failure").is_visible(), self.text("#failure")
        assert not self.errors(), self.errors()
        return self.history()[0]

    def history(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(self.stored("lorikeet.history") or "[]")
        return entries

    def stored(self, key: str) -> str | None:
        value: str | None = self.page.evaluate("(key) => sessionStorage.getItem(key)", key)
        return value

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def errors(self) -> dict[str, str]:
        """Field names with the error that the form shows at them."""
        shown = self.page.locator(".field > .error:visible, .list > .error:visible").all()
        return {error.locator("..").get_attribute("data-field") or "": error.inner_text() for error in shown}

    def posted(self, path: str) -> list[Any]:
        """The JSON bodies that the page posted to a path."""
        return [sent.post_data_json for sent in self.requests if sent.method == "POST" and sent.url.endswith(path)]
