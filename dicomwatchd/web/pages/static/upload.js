// Sends a folder, file by file and piece by piece; goes on where it stopped, whatever is cut off in between.
"use strict";
(() => {
  const form = document.getElementById("upload");
  if (!form) return;
  const get = (id) => document.getElementById(id);
  const texts = JSON.parse(form.dataset.texts);
  const pieceBytes = Number(form.dataset.piece);
  const listed = Math.min(Number(form.dataset.listed), 200);
  const german = form.dataset.language === "de";
  const HASHED_BYTES = 64 * 1024 * 1024; // of larger files the sums of their pieces are hashed
  const HASHED_PIECE_BYTES = 8 * 1024 * 1024; // as the server does
  const AT_ONCE = 4;
  const canHash = Boolean(window.crypto && crypto.subtle);
  let stopped = false;

  const say = (name, values = {}) => texts[name].replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ""));
  const number = (value) => value.toLocaleString(german ? "de-DE" : "en-US");
  const size = (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let at = 0;
    while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
    return bytes.toLocaleString(german ? "de-DE" : "en-US", { maximumFractionDigits: at ? 1 : 0 }) + " " + units[at];
  };
  const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
  const status = (text) => { if (get("status").textContent !== text) get("status").textContent = text; };
  const trouble = (text) => { if (get("trouble").textContent !== text) get("trouble").textContent = text; };
  class Refused extends Error {}
  class Stopped extends Error {}

  const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const base64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));

  // The answer, once there is one: what is cut off, or refused for now, is tried again until it works.
  const ask = async (method, address, body, headers = {}) => {
    for (let tries = 0; ; tries += 1) {
      if (stopped) throw new Stopped();
      let answer = null;
      try {
        answer = await fetch(address, {
          method, body, cache: "no-store", redirect: "manual", headers: { Accept: "application/json", ...headers },
        });
      } catch (_) { /* no connection */ }
      if (answer && answer.type === "opaqueredirect") trouble(say("login"));
      else if (!answer) trouble(say("waiting"));
      else if (answer.status === 401) trouble(say("login"));
      else if (answer.status === 507) {
        const said = await answer.json().catch(() => ({}));
        if (said.message) throw new Refused(said.message);
        trouble(say("full"));
      } else if (answer.status >= 500 || answer.status === 429) trouble(say("waiting"));
      else {
        trouble("");
        return answer;
      }
      await pause(Math.min(1 + tries * 2, 15));
    }
  };
  const json = async (method, address, value) => {
    const answer = await ask(method, address, JSON.stringify(value), { "Content-Type": "application/json" });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Refused(said.message || String(answer.status));
    return said;
  };

  // What was chosen: names from the chosen folder on, without that folder's own.
  const chosen = () => {
    const found = new Map();
    const add = (file, name) => {
      let path = name;
      for (let copy = 2; found.has(path); copy += 1) path = `${name} (${copy})`;
      found.set(path, { file, path });
    };
    for (const file of get("folder").files) add(file, file.webkitRelativePath.split("/").slice(1).join("/") || file.name);
    for (const file of get("files").files) add(file, file.name);
    return [...found.values()];
  };
  const unreadable = (one) => new Refused(say("unreadable", { name: one.path }));
  const sha256 = async (one) => {
    if (!canHash) return "";
    const of = async (blob) => {
      let bytes;
      try { bytes = await blob.arrayBuffer(); } catch (_) { throw unreadable(one); }
      return crypto.subtle.digest("SHA-256", bytes);
    };
    if (one.file.size <= HASHED_BYTES) return hex(await of(one.file));
    const sums = [];
    for (let at = 0; at < one.file.size; at += HASHED_PIECE_BYTES) {
      if (stopped) throw new Stopped();
      sums.push(await of(one.file.slice(at, at + HASHED_PIECE_BYTES)));
    }
    return "pieces-" + hex(await of(new Blob(sums)));
  };

  let doneFiles = 0, doneBytes = 0, sameFiles = 0, spoken = 0;
  const show = (total, totalBytes) => {
    get("progress").max = Math.max(totalBytes, 1);
    get("progress").value = totalBytes ? doneBytes : 1;
    const text = say("sending", { done: number(doneFiles), total: number(total), size: size(doneBytes), sizes: size(totalBytes) });
    get("sent").textContent = text;
    if (Date.now() - spoken > 10000) { spoken = Date.now(); status(text); } // a screen reader reads this one
  };

  const send = async (upload, one, place, shown) => {
    let offset = place.offset, counted = place.offset, tries = 0;
    doneBytes += counted;
    while (true) {
      if (stopped) throw new Stopped();
      let bytes;
      try { bytes = await one.file.slice(offset, offset + pieceBytes).arrayBuffer(); } catch (_) { throw unreadable(one); }
      const headers = { "Content-Type": "application/octet-stream" };
      if (canHash) headers["Content-Digest"] = `sha-256=:${base64(await crypto.subtle.digest("SHA-256", bytes))}:`;
      const answer = await ask("PUT", `/uploads/${upload}/files/${place.number}?offset=${offset}`, bytes, headers);
      const said = await answer.json().catch(() => ({}));
      if (answer.ok) offset = said.offset;
      else if (answer.status === 409 && Number.isInteger(said.offset)) {
        offset = said.offset;
        if (said.error === "again" && (tries += 1) > 5) throw unreadable(one);
        await pause(0.3);
      } else if (answer.status === 422 && (tries += 1) <= 5) await pause(0.3);
      else throw new Refused(said.message || String(answer.status));
      doneBytes += offset - counted;
      counted = offset;
      shown();
      if (answer.ok && said.there) return;
    }
  };

  const run = async () => {
    const all = chosen();
    if (!get("folder").files.length && !get("files").files.length) { trouble(say("none")); return; }
    if (!all.length) { trouble(say("empty")); return; }
    const totalBytes = all.reduce((sum, one) => sum + one.file.size, 0);
    const shown = () => show(all.length, totalBytes);
    get("sending").hidden = false;
    shown();
    status(say("listing"));
    let upload = form.dataset.upload;
    if (!upload) {
      upload = (await json("POST", "/uploads", {})).upload;
      form.dataset.upload = upload;
      history.replaceState(null, "", `/uploads/${upload}`);
    }
    for (let at = 0; at < all.length; at += listed) {
      const lot = all.slice(at, at + listed);
      const files = [];
      for (const one of lot) {
        if (stopped) throw new Stopped();
        files.push({ path: one.path, size: one.file.size, sha256: await sha256(one), modified: Math.max(0, Math.round(one.file.lastModified || 0)) });
      }
      const places = (await json("POST", `/uploads/${upload}/files`, { files })).files;
      const left = lot.map((one, index) => ({ one, place: places[index] }));
      const worker = async () => {
        for (let next = left.shift(); next; next = left.shift()) {
          if (next.place.there) { doneBytes += next.one.file.size; sameFiles += 1; } else await send(upload, next.one, next.place, shown);
          doneFiles += 1;
          shown();
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
    }
    status((sameFiles ? say("same", { number: number(sameFiles) }) + " " : "") + say("finishing"));
    const { page } = await json("POST", `/uploads/${upload}/finish`, { files: all.length });
    try { sessionStorage.setItem("awaited", page); } catch (_) { /* as in state.js */ }
    location.assign(page);
  };

  get("stop").addEventListener("click", () => { stopped = true; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    stopped = false;
    doneFiles = doneBytes = sameFiles = spoken = 0;
    trouble("");
    get("start").disabled = true;
    get("stop").hidden = false;
    try {
      await run();
    } catch (error) {
      if (error instanceof Stopped) status(say("stopped"));
      else if (error instanceof Refused) trouble(say("refused", { why: error.message }));
      else throw error;
    } finally {
      get("start").disabled = false;
      get("stop").hidden = true;
    }
  });
})();
