"""Mutants of what `top` and `stats` show: figures, and nothing that steers a terminal, a spreadsheet or a browser. Rows
of `mutations.Mutation`."""

from __future__ import annotations

TOP = ("tests/unit/test_top_screen.py",)
STATS = ("tests/unit/test_stats.py",)
_SEEN, _SCREEN, _FIGURES = "cli/top/seen.py", "cli/top/screen.py", "cli/stats/figures.py"

FIGURES: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"top, figures: {name}", _SEEN, old, new, TOP)
        for name, old, new in (
            ("another daemon begins anew", "            self._answers.clear()  #", "            pass  #"),
            ("of the last seconds", "<= window_seconds)", "<= 1e9)"),
            (
                "none of one answer",
                "return None if seconds < _LEAST_SECONDS else",
                "seconds = seconds or 1.0\n        return",
            ),
            ("by the minute", "STUDIES_WINDOW_SECONDS), 60.0)", "STUDIES_WINDOW_SECONDS), 1.0)"),
            (
                "files that are gone already",
                'max(self._most.get(study["study_uid"], 0), _here(study))\n',
                "_here(study)\n",
            ),
            ("what is deleted is done", "return Progress(most - here, most)", "return Progress(here, most)"),
            ("what is verified", 'study["verified"] or 0, files["ready"] + files["stored"]', 'files["stored"], here'),
            ("what is stored", 'return Progress(files["stored"], here)', 'return Progress(files["ready"], here)'),
            ("no more than all", "min(1.0, self.done / self.total)", "self.done / self.total"),
            (
                "manifest and catalogue have no files",
                "        if state == _WITHOUT_FILES:\n            return Progress(None, None)\n",
                "",
            ),
        )
    ),
    *(
        (f"top, screen: {name}", _SCREEN, old, new, TOP)
        for name, old, new in (
            ("nothing steers it", "how.safe(output.clean(text))[:width]", "how.safe(text)[:width]"),
            ("its width", "how.safe(output.clean(text))[:width]", "how.safe(output.clean(text))"),
            (
                "scrolling ends",
                "        begin = min(scrolled, furthest)\n".removeprefix("    "),
                "    begin = scrolled\n",
            ),
            ("room for studies", "room = None if height is None else max(2, (height - 12) // 3)", "room = None"),
            ("what is in trouble comes first", 'key=lambda one: (one["state"] in _STATES, ', "key=lambda one: ("),
            ("a daemon that is away", "    if away is not None:\n", "    if False:\n"),
        )
    ),
    (
        "top: a terminal without a size",
        "cli/top/terminal.py",
        "found.columns or _USUAL[0], found.lines or _USUAL[1]",
        "max(1, found.columns), max(1, found.lines)",
        TOP,
    ),
    *(
        (f"stats, figures: {name}", _FIGURES, old, new, STATS)
        for name, old, new in (
            ("all of it", '        at.bytes += one["bytes"]\n', '        at.bytes = one["bytes"]\n'),
            ("all shipments", '        at.shipments += one["shipments"]\n', "        at.shipments += 1\n"),
            ("all files", '        at.files += one["files"]\n', ""),
            ("in its place", "found[min(_hours(_floor(begin, hours) - first) // hours, len(found) - 1)]", "found[-1]"),
            (
                "no more columns than there is room for",
                "        if hours >= least and count <= most:\n",
                "        if hours >= least:\n",
            ),
            (
                "a day is not cut into hours",
                "        if hours >= least and count <= most:\n",
                "        if count <= most:\n",
            ),
            (
                "as far back as there is anything",
                'min([_time(history["since"]), *(begin for begin, _, _ in parsed)])',
                '_time(history["since"])',
            ),
            ("empty ends are left out", "found[filled[0] : filled[-1] + 1] if filled else []", "found"),
            (
                "the last is open",
                'names.append(f"over {said(buckets[-2][key])}")',
                'names.append(f"up to {said(buckets[-2][key])}")',
            ),
            ("a median of nothing", '    if not distribution["shipments"]:\n        return ""\n', ""),
        )
    ),
    *(
        (f"stats, table: {name}", "cli/stats/table.py", old, new, STATS)
        for name, old, new in (
            (
                "no formula",
                '    return f"\'{text}" if text.lstrip()[:1] in tuple("=+-@") else text\n',
                "    return text\n",
            ),
            ("no escape sequence", "text = output.clean(value)", "text = value"),
            ("ends of lines", 'lineterminator="\\r\\n"', 'lineterminator="\\n"'),
        )
    ),
    *(
        (f"stats, page: {name}", "cli/stats/page.py", old, new, STATS)
        for name, old, new in (
            (
                "a cell is no markup",
                "{escape(output.clean('' if one is None else one))}",
                "{output.clean('' if one is None else one)}",
            ),
            ("nothing from elsewhere", "default-src 'none'; style-src", "style-src"),
            (
                "what it may replace",
                '    with path.open("rb") as file:\n        return ',
                '    with path.open("rb") as file:\n        return True or ',
            ),
        )
    ),
    *(
        (f"stats, page: {name}", "cli/stats/command.py", old, new, STATS)
        for name, old, new in (
            ("no other file", " and not (path.is_file() and page.is_one(path)):", " and False:"),
            ("nothing half done is left", "            temporary.unlink(missing_ok=True)\n", "            pass\n"),
        )
    ),
)
