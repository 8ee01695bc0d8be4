// What the archive does not hand out of a study is said before its first image is shown: the viewer tells nobody.
(() => {
  const texts = {
    en: {
      title: 'Not all images are shown.',
      left: (left, all, reasons) => `Left out of this study: ${left} of ${all} images (${reasons}).`,
      damaged: number => `${number} damaged`,
      conflicting: number => `${number} archived in several versions that differ`,
      unknown: number => `${number} found again in the archive, of which nothing else is known`,
      patients: 'The files of this study name two patients: none of its images is shown.',
      some: 'Images of a series are left out: they cannot be read, or the archive has other bytes now.',
      failed: 'A series of this study cannot be shown.',
      unsaid: 'Whether all images are shown is not known: the archive did not say.',
      page: 'The study’s page',
      understood: 'Understood',
      mark: 'Not all images',
    },
    de: {
      title: 'Es werden nicht alle Bilder gezeigt.',
      left: (left, all, reasons) => `Von dieser Studie nicht gezeigt: ${left} von ${all} Bildern (${reasons}).`,
      damaged: number => `${number} beschädigt`,
      conflicting: number => `${number} in mehreren Fassungen archiviert, die sich unterscheiden`,
      unknown: number => `${number} im Archiv wiedergefunden, von denen sonst nichts bekannt ist`,
      patients: 'Die Dateien dieser Studie nennen zwei Patienten: keines ihrer Bilder wird gezeigt.',
      some: 'Bilder einer Serie fehlen: sie sind nicht lesbar, oder das Archiv hat jetzt andere Bytes.',
      failed: 'Eine Serie dieser Studie kann nicht gezeigt werden.',
      unsaid: 'Ob alle Bilder gezeigt werden, ist nicht bekannt: das Archiv hat es nicht gesagt.',
      page: 'Seite der Studie',
      understood: 'Verstanden',
      mark: 'Nicht alle Bilder',
    },
  };
  const language = window.dicomwatchdLanguage === 'de' ? 'de' : 'en';
  const words = texts[language];
  const WAIT_MS = 10000;
  const RETRY_MS = 1000;

  // -- what is said ---------------------------------------------------------------------------------------------------

  const notes = new Map(); // of each study its sentences
  let box = null;
  let isSmall = false;

  const made = (name, text, style) => Object.assign(document.createElement(name), { textContent: text, style });
  const place = 'position:fixed;z-index:2147483647;font:14px/1.4 sans-serif;color:#000;background:#ffd54a;' +
    'border:2px solid #000;border-radius:4px;';

  const draw = () => {
    if (!document.body) return;
    if (!box) {
      box = document.body.appendChild(document.createElement('div'));
      box.id = 'dicomwatchd-left-out';
      box.lang = language;
      box.setAttribute('role', 'alert');
    }
    box.replaceChildren();
    if (isSmall) {
      // In the head of the page, left of the tools: nothing of an image is covered.
      box.style = `${place}top:9px;left:104px;max-width:220px`;
      const mark = made('button', `⚠ ${words.mark}`, 'padding:3px 8px;font-weight:bold;cursor:pointer');
      mark.onclick = () => { isSmall = false; draw(); };
      box.append(mark);
      return;
    }
    box.style = `${place}top:56px;left:50%;transform:translateX(-50%);width:min(720px,94vw);padding:10px 14px`;
    box.append(made('strong', `⚠ ${words.title}`, 'display:block'));
    for (const [study, sentences] of notes) {
      for (const sentence of sentences) {
        const line = made('p', `${sentence} `, 'margin:4px 0');
        const page = made('a', words.page, 'color:#00308f;text-decoration:underline');
        page.href = `/studies/${study}`;
        line.append(page);
        box.append(line);
      }
    }
    const understood = made('button', words.understood,
      'margin-top:4px;padding:3px 12px;background:#000;color:#fff;border-radius:4px;cursor:pointer');
    understood.onclick = () => { isSmall = true; draw(); };
    box.append(understood);
  };

  const say = (study, sentence) => {
    const sentences = notes.get(study) || new Set();
    if (sentences.has(sentence)) return;
    notes.set(study, sentences.add(sentence));
    isSmall = false;
    draw();
  };
  document.addEventListener('DOMContentLoaded', () => { if (notes.size) draw(); });

  // -- what is asked --------------------------------------------------------------------------------------------------

  const asked = new Map(); // by study, the promise that it is known
  const isKnown = new Set();
  const isCounted = new Set(); // what is unsound of these was said, with its number

  const once = async study => {
    const answer = await fetch(`/dicom-web/studies/${study}/left-out`, {
      headers: { Accept: 'application/json' },
      signal: AbortSignal.timeout(WAIT_MS),
    });
    if ([400, 401, 403, 404, 410].includes(answer.status)) return; // there is nothing to be shown
    if (!answer.ok) throw new Error('no answer');
    const found = await answer.json();
    if (found.two_patients) {
      isCounted.add(study);
      say(study, words.patients);
      return;
    }
    const left = Object.entries(found.left_out);
    if (!left.length) return;
    const reasons = left.map(([standing, number]) => (words[standing] || words.unknown)(number)).join(', ');
    isCounted.add(study);
    say(study, words.left(left.reduce((sum, [, number]) => sum + number, 0), found.instances, reasons));
  };

  const ask = study => {
    if (!asked.has(study)) {
      const trying = once(study)
        .catch(() => new Promise(again => setTimeout(again, RETRY_MS)).then(() => once(study)))
        .catch(() => say(study, words.unsaid))
        .finally(() => isKnown.add(study));
      asked.set(study, trying);
    }
    return asked.get(study);
  };

  for (const value of new URLSearchParams(window.location.search).getAll('StudyInstanceUIDs'))
    for (const study of value.split(','))
      if (/^[0-9.]{1,64}$/.test(study)) ask(study);

  // -- what the viewer asks: without what describes its images it shows none, and waits for that until it is known ----

  const described = new WeakMap();
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    const { origin, pathname } = new URL(url, window.location.href);
    const match = /^\/dicom-web\/studies\/([0-9.]{1,64})\/(?:.*\/)?metadata$/.exec(pathname);
    if (match && origin === window.location.origin) described.set(this, match[1]);
    else described.delete(this);
    return open.call(this, method, url, ...rest);
  };
  // A study that has a note already may lack more than that says: only what is in its count is not said again.
  const COUNTED = ['damaged-instance', 'conflicting-instance', 'unknown-instance', 'two-patients'];
  const codeOf = request => {
    try {
      const { response } = request;
      return (typeof response === 'string' ? JSON.parse(response) : response).error;
    } catch {
      return null;
    }
  };
  const broken = ({ target }) => {
    if (described.has(target)) say(described.get(target), words.failed);
  };
  const answered = ({ target }) => {
    const study = described.get(target);
    if (!study || target.status === 401) return; // a session that has ended leads to the log-in
    if (target.status >= 400) {
      const isInCount = target.status === 409 && isCounted.has(study) && COUNTED.includes(codeOf(target));
      if (!isInCount) say(study, words.failed);
      return;
    }
    const warning = target.getResponseHeader('Warning') || '';
    const isMore = warning.includes('headers cannot be read') || !isCounted.has(study);
    if (isMore && warning.includes('left out')) say(study, words.some);
  };
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (...given) {
    const study = described.get(this);
    if (!study) return send.apply(this, given);
    for (const kind of ['error', 'timeout']) this.addEventListener(kind, broken);
    this.addEventListener('load', answered);
    if (isKnown.has(study)) return send.apply(this, given);
    ask(study).then(() => send.apply(this, given));
  };
})();
