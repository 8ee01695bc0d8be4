"""Debian's Firefox as a person uses it. What its pages ask, and what is forbidden them, the browser itself notes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.chromium import PATIENCE_SECONDS
from tests.browser.marionette import Marionette, Refused

#: The name of an element's number in WebDriver's JSON.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_ENTER = "\ue007"
#: After these a person would look again, and try once more. The last is said of a script whose page is left.
_NOT_YET = {
    *("no such element", "stale element reference", "element not interactable", "element click intercepted"),
    *("no such window", "javascript error"),
}

#: What is clicked before a page is loaded and painted is lost.
_SETTLED = """const [done] = arguments;
requestAnimationFrame(() => requestAnimationFrame(() => done(document.readyState === "complete")));"""
#: In the browser's own window. What the browser asks for itself, such as its updates, is not its pages'.
_WATCH = """const [origin] = arguments;
const noted = window.noted = { complaints: [], elsewhere: [] };
Services.console.registerListener({ observe(message) {
  if (!(message instanceof Ci.nsIScriptError)) return;
  const failed = message.category === "content javascript" && !(message.flags & Ci.nsIScriptError.warningFlag);
  if (failed || message.category.startsWith("CSP"))
    noted.complaints.push(`${message.errorMessage} (${message.sourceName}:${message.lineNumber})`);
} });
const of = (subject) => subject.QueryInterface(Ci.nsIHttpChannel);
Services.obs.addObserver({ observe(subject) {
  const { loadInfo, URI } = of(subject);
  if (loadInfo.triggeringPrincipal.isContentPrincipal && URI.prePath !== origin) noted.elsewhere.push(URI.spec);
} }, "http-on-modify-request");
Services.obs.addObserver({ observe(subject) {
  const { URI, responseStatus } = of(subject);
  if (URI.prePath === origin && responseStatus >= 500) noted.complaints.push(`${responseStatus} ${URI.spec}`);
} }, "http-on-examine-response");"""
_NOTED = """const { complaints, elsewhere } = window.noted;
return [complaints.splice(0), elsewhere.splice(0)];"""
#: In the place of the desktop's dialogue, which no program can use: the answer is this folder.
_CHOOSE = """const folder = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
folder.initWithPath(arguments[0]);
const picker = {
  QueryInterface: ChromeUtils.generateQI(["nsIFilePicker"]),
  file: folder, addToRecentDocs: false, capture: 0, defaultExtension: "", defaultString: "", displayDirectory: null,
  displaySpecialDirectory: "", filterIndex: 0, mode: 0, okButtonLabel: "",
  init() {}, appendFilter() {}, appendFilters() {}, appendRawFilter() {},
  open(shown) { Services.tm.dispatchToMainThread(() => shown.done(Ci.nsIFilePicker.returnOK)); },
};
const factory = { createInstance: (kind) => picker.QueryInterface(kind) };
Components.manager.QueryInterface(Ci.nsIComponentRegistrar).registerFactory(
  Services.uuid.generateUUID(), "", "@mozilla.org/filepicker;1", factory);"""


class Firefox:
    """One browser with one window. ``origin`` is all that its pages may ask, such as http://127.0.0.1:20123. Where
    something is, is said as a CSS selector, or as an XPath that begins with //."""

    def __init__(self, marionette: Marionette, origin: str) -> None:
        self._marionette, self._origin = marionette, origin
        marionette.ask("WebDriver:NewSession", unhandledPromptBehavior="ignore")
        milliseconds = PATIENCE_SECONDS * 1000
        marionette.ask("WebDriver:SetTimeouts", pageLoad=milliseconds, script=milliseconds, implicit=0)
        self._in_the_browser(_WATCH, origin)

    def noted(self) -> tuple[list[str], list[str]]:
        """Since the last time: what the browser has to say of the pages (forbidden by the policy, scripts that failed,
        answers of 500 and above), and which addresses elsewhere they asked."""
        complaints, elsewhere = self._in_the_browser(_NOTED)
        return complaints, elsewhere

    def forget(self) -> None:
        """Whoever comes now is somebody else."""
        self._marionette.ask("WebDriver:DeleteAllCookies")

    @property
    def address(self) -> str:
        """Of the page, without the origin."""
        return str(self._marionette.ask("WebDriver:GetCurrentURL")).removeprefix(self._origin)

    def go(self, address: str) -> None:
        self._marionette.ask("WebDriver:Navigate", url=self._origin + address)

    def wait_for_address(self, beginning: str) -> None:
        self.wait_for(lambda: self.address.startswith(beginning))

    def evaluate(self, function: str, *arguments: Any) -> Any:
        """What the page's own script would get from it."""
        script = f"return ({function})(...arguments);"
        return self._marionette.ask("WebDriver:ExecuteScript", script=script, args=list(arguments))

    def click(self, where: str) -> None:
        self._do(where, lambda element: self._marionette.ask("WebDriver:ElementClick", id=element))

    def double_click(self, where: str) -> None:
        moves: list[dict[str, Any]] = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}] * 2

        def twice(element: str) -> None:
            reference = {_ELEMENT: element}
            self.evaluate("(one) => one.scrollIntoView({ block: 'center' })", reference)
            mouse = {"type": "pointerMove", "x": 0, "y": 0, "origin": reference}
            device = {"type": "pointer", "id": "mouse", "actions": [mouse, *moves]}
            self._marionette.ask("WebDriver:PerformActions", actions=[device])

        self._do(where, twice)

    def turn_wheel(self, where: str) -> None:
        """By one notch, down."""

        def turned(element: str) -> None:
            turn = {"type": "scroll", "x": 0, "y": 0, "deltaX": 0, "deltaY": 100, "origin": {_ELEMENT: element}}
            device = {"type": "wheel", "id": "wheel", "actions": [turn]}
            self._marionette.ask("WebDriver:PerformActions", actions=[device])

        self._do(where, turned)

    def type(self, where: str, text: str, *, enter: bool = False) -> None:
        """In the place of what is there."""
        self._do(where, lambda element: self._marionette.ask("WebDriver:ElementClear", id=element))
        keys = text + (_ENTER if enter else "")
        self._do(where, lambda element: self._marionette.ask("WebDriver:ElementSendKeys", id=element, text=keys))

    def text(self, where: str) -> str:
        """As soon as there is one."""
        found: list[str] = []

        def read(element: str) -> None:
            found[:] = [str(self._marionette.ask("WebDriver:GetElementText", id=element))]

        self.wait_for(lambda: self._tried(where, read) and found[0])
        return found[0]

    def choose_folder(self, label: str, folder: Path) -> None:
        """By a click on the field's label, in the dialogue, and with Yes to the question whether all of it is meant."""
        self._in_the_browser(_CHOOSE, str(folder))
        self.click(label)
        self.wait_for(self._accepted)

    def wait_for(self, what: Callable[[], object], why: Callable[[], object] = lambda: "") -> None:
        """Until it is true. Raises AssertionError, which says ``why``."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert time.monotonic() < end, f"in vain at {self.address}: {why()}"
            time.sleep(0.1)

    def _accepted(self) -> bool:
        try:
            self._marionette.ask("WebDriver:AcceptAlert")
        except Refused as error:
            if error.kind != "no such alert":
                raise
            return False
        return True

    def _do(self, where: str, what: Callable[[str], object]) -> None:
        self.wait_for(lambda: self._tried(where, what), lambda: where)

    def _tried(self, where: str, what: Callable[[str], object]) -> bool:
        """``what`` gets the element's number."""
        using = "xpath" if where.startswith("//") else "css selector"
        try:
            if not self._marionette.ask("WebDriver:ExecuteAsyncScript", script=_SETTLED, args=[]):
                return False
            what(self._marionette.ask("WebDriver:FindElement", using=using, value=where)[_ELEMENT])
        except Refused as error:
            if error.kind not in _NOT_YET:
                raise
            return False
        return True

    def _in_the_browser(self, script: str, *arguments: Any) -> Any:
        self._marionette.ask("Marionette:SetContext", value="chrome")
        try:
            return self._marionette.ask("WebDriver:ExecuteScript", script=script, args=list(arguments))
        finally:
            self._marionette.ask("Marionette:SetContext", value="content")
