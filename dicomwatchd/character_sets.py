"""The character sets of DICOM (PS3.3 C.12.1.1.2), what else is found in files, and how their names are misspelt.

No library of DICOM is imported: the configuration names character sets too, and every command reads that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dicomwatchd.model import DicomJson

#: The default repertoire (ISO 646). It has no byte above 0x7F.
DEFAULT = "ISO_IR 6"
DEFAULT_CODEC = "ascii"
LATIN_1 = "ISO_IR 100"
UTF_8 = "ISO_IR 192"

#: How it is known what a text was read as ("charset_by" of an attribute): by the file, although not all of the text
#: could be; by `charset_when_missing`; or by nothing but the bytes themselves.
DECLARATION, CONFIGURATION, GUESS = "declaration", "configuration", "guess"
#: The flag of a study with such text on record; what somebody has configured is no guess.
GUESSED = "charset-guessed"

#: Numbers of ISO-IR to Python's codecs: of all but the default repertoire, without and with code extensions.
_SINGLE_BYTE = {
    13: "shift_jis",  # JIS X 0201
    100: "latin_1",
    101: "iso8859_2",
    109: "iso8859_3",
    110: "iso8859_4",
    126: "iso8859_7",
    127: "iso8859_6",
    138: "iso8859_8",
    144: "iso8859_5",
    148: "iso8859_9",
    166: "tis_620",
    203: "iso8859_15",
}
_BY_ESCAPE = {58: "gb2312", 87: "iso2022_jp", 149: "euc_kr", 159: "iso2022_jp_2"}

#: Of those with code extensions: where bytes above 0x7F are no text of theirs, that shows.
MULTI_BYTE_CODECS = frozenset(_BY_ESCAPE.values())

#: Defined term to Python's codec.
TERMS: Mapping[str, str] = {
    DEFAULT: DEFAULT_CODEC,
    **{f"ISO_IR {number}": codec for number, codec in _SINGLE_BYTE.items()},
    UTF_8: "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO 2022 IR 6": DEFAULT_CODEC,
    **{f"ISO 2022 IR {number}": codec for number, codec in (_SINGLE_BYTE | _BY_ESCAPE).items()},
}

#: Character sets that DICOM has no term for, by the names of Python's codecs. In all of them a byte below 0x80 that
#: begins a character is ASCII's, and no state goes on from one character to the next.
CODECS = (
    *(f"cp{number}" for number in (437, 720, 737, 775, 850, 852, 855, 857, 858, *range(860, 864), 865, 866, 869)),
    *("cp874", "cp932", "cp949", "cp950", "big5hkscs", "euc_jp"),
    *(f"cp{number}" for number in range(1250, 1259)),
    *("iso8859_10", "iso8859_13", "iso8859_14", "iso8859_16", "koi8_r", "koi8_u"),
    *("mac_cyrillic", "mac_greek", "mac_latin2", "mac_roman", "mac_turkish"),
)

#: What a file may be taken to be written in that declares nothing: a set whose bytes above 0x7F are characters.
USABLE_WHEN_MISSING: Mapping[str, str] = {
    **{term: codec for term, codec in TERMS.items() if term.startswith(("ISO_IR", "GB")) and term != DEFAULT},
    **{codec: codec for codec in CODECS},
}

_OF_PARTS_OF_ISO_8859 = {1: 100, 2: 101, 3: 109, 4: 110, 5: 144, 6: 127, 7: 126, 8: 138, 9: 148, 11: 166, 15: 203}
#: Other names, in capitals and without what is no letter and no digit.
_OTHER_NAMES = {
    **{f"ISO8859{part}": f"ISO_IR {number}" for part, number in _OF_PARTS_OF_ISO_8859.items()},
    **{f"ISO8859{part}": f"iso8859_{part}" for part in (10, 13, 14, 16)},
    **{f"LATIN{n}": f"ISO_IR {number}" for n, number in {1: 100, 2: 101, 3: 109, 4: 110, 5: 148, 9: 203}.items()},
    **{f"{word}{number}": f"cp{number}" for word in ("WINDOWS", "WIN", "CP", "ANSI") for number in range(1250, 1259)},
    **{codec.replace("_", "").upper(): codec for codec in CODECS},
    **dict.fromkeys(("UTF8", "ISO10646UTF8", "UNICODEUTF8", "UTF8BOM"), UTF_8),
    **dict.fromkeys(("ASCII", "USASCII", "ISO646", "ISO646US"), DEFAULT),
    **dict.fromkeys(("GB18030", "GB180302000", "GB180302005", "CP54936"), "GB18030"),
    # Each has the next within it.
    **dict.fromkeys(("GBK", "CP936", "WINDOWS936", "GB2312", "GB231280", "EUCCN", "ISO2022GBK"), "GBK"),
    **dict.fromkeys(("CP949", "WINDOWS949", "UHC", "EUCKR", "KSC5601", "KSX1001", "KSC56011987"), "cp949"),
    **dict.fromkeys(("CP932", "WINDOWS932", "WINDOWS31J", "MS932", "SHIFTJIS", "SJIS", "MSKANJI"), "cp932"),
    **dict.fromkeys(("CP950", "WINDOWS950", "BIG5"), "cp950"),
    **dict.fromkeys(("CP874", "WINDOWS874"), "cp874"),
    **dict.fromkeys(("TIS620", "TIS6202533"), "ISO_IR 166"),
    "KOI8": "koi8_r",
    "ISO202258": "ISO 2022 IR 58",
}
_NUMBERED = re.compile(r"(?:ISO|IR)(2022)?(?:IR)?(2022)?(?:IR)?([1-9][0-9]{0,2})\Z")
#: A longer name is none of ours.
_LONGEST = 32


def codec_of(name: str) -> str | None:
    """Python's codec for a defined term, or for another name out of `corrected`."""
    return TERMS.get(name) or (name if name in CODECS else None)


def corrected(text: str) -> str | None:
    """The defined term, or else the codec, that a name means, however it is spelt; None where nobody can say."""
    if text in TERMS:
        return text
    if len(text) > _LONGEST:
        return None
    key = re.sub(r"[^A-Z0-9]", "", text.upper()) if text.isascii() else ""
    if key in _OTHER_NAMES:
        return _OTHER_NAMES[key]
    if (numbered := _NUMBERED.match(key)) is None:
        return None
    plain, extended = f"ISO_IR {numbered[3]}", f"ISO 2022 IR {numbered[3]}"
    # Some numbers stand in one form alone: UTF-8 is not extended, and 87 is nothing but an extension.
    forms = (extended, plain) if numbered[1] or numbered[2] else (plain, extended)
    return next((form for form in forms if form in TERMS), None)


def is_guessed(attributes: DicomJson) -> bool:
    """Whether any of the attributes on record may be another text than was meant, and nobody said that it is not."""
    return any(element.get("charset_by") in (DECLARATION, GUESS) for element in attributes.values())
