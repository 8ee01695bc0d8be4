// Asks how something stands until it has ended; then the page that says so is loaded. What is said there gets the focus
// if somebody has waited for it, since what stands in a page from its beginning is not read out by a screen reader.
"use strict";
(() => {
  const state = document.getElementById("state");
  try {
    if (state) sessionStorage.setItem("awaited", location.pathname);
    else if (sessionStorage.getItem("awaited") === location.pathname) {
      sessionStorage.removeItem("awaited");
      (document.getElementById("verdict") || document.getElementById("send-result"))?.focus();
    }
  } catch (_) { /* a browser that keeps nothing */ }
  if (!state) return;
  const bar = document.getElementById("progress");
  const text = document.getElementById("state-text");
  let spoken = 0;
  const ask = async () => {
    try {
      const answer = await fetch(state.dataset.state, { headers: { Accept: "application/json" }, cache: "no-store" });
      if (answer.status === 401 || answer.redirected) { location.reload(); return; }
      if (answer.ok) {
        const said = await answer.json();
        if (said.ended) { location.reload(); return; }
        if (said.total) { bar.max = said.total; bar.value = said.done; } else { bar.removeAttribute("value"); }
        // A screen reader reads each change: not more often than it can.
        if (Date.now() - spoken > 5000 && text.textContent !== said.text) { text.textContent = said.text; spoken = Date.now(); }
      }
    } catch (_) { /* the next time */ }
    setTimeout(ask, 1000);
  };
  ask();
})();
