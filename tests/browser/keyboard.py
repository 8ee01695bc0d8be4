"""A person without a mouse: Tab, Enter and what they type, and always to be seen where that goes."""

from __future__ import annotations

from typing import Any, Final

from playwright.sync_api import FileChooser, Locator, Page

#: More than any page has.
_MOST_STEPS: Final = 80
#: Contrast is that of WCAG 1.4.11, of the outline and of what lies behind it.
_FOCUSED: Final = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one), box = one.getBoundingClientRect();
  const channels = color => color.match(/[0-9.]+/g).map(Number);
  const light = color => {
    const [red, green, blue] = channels(color).slice(0, 3).map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  let behind = one.parentElement;
  while (behind && (channels(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const [dark, bright] = [style.outlineColor, behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)']
    .map(light).sort((a, b) => a - b);
  return {
    what: one.outerHTML.slice(0, 160),
    outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    contrast: (bright + 0.05) / (dark + 0.05),
    seen: box.width > 0 && box.height > 0 && box.left >= 0 && box.top >= 0
      && box.left < innerWidth && box.bottom <= innerHeight,
  };
}"""


class Keyboard:
    def __init__(self, page: Page) -> None:
        self._page = page
        #: What had the focus, one after the other.
        self.passed: list[str] = []

    def reach(self, wanted: Locator) -> None:
        """By Tab alone. Whatever is passed on the way has a focus that is seen. Raises AssertionError."""
        wanted.wait_for()
        self._page.wait_for_load_state()  # what is there without its stylesheet yet has the browser's own outline
        for _ in range(_MOST_STEPS):
            if wanted.evaluate("one => one === document.activeElement"):
                return
            self._page.keyboard.press("Tab")
            focused: dict[str, Any] | None = self._page.evaluate(_FOCUSED)
            if focused is not None:  # otherwise it is the browser's own
                self.passed.append(focused["what"])
                assert focused["outlined"], f"not to be seen where the focus is: {focused['what']}"
                assert focused["contrast"] >= 3, f"the focus is hardly to be seen: {focused}"
                assert focused["seen"], f"the focus is outside of what is seen: {focused['what']}"
        raise AssertionError(f"not to be reached by Tab; passed: {self.passed[-_MOST_STEPS:]}")

    def press(self, wanted: Locator, key: str = "Enter") -> None:
        self.reach(wanted)
        self._page.keyboard.press(key)

    def type(self, wanted: Locator, text: str) -> None:
        self.reach(wanted)
        self._page.keyboard.type(text)

    def choosing(self, wanted: Locator) -> FileChooser:
        """The browser's own dialogue, which is not ours to try."""
        with self._page.expect_file_chooser() as chosen:
            self.press(wanted)
        return chosen.value
