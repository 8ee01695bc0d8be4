"""What all sections are made of: the model that knows no key but its own, plain values, patterns and their words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dicomwatchd.character_sets import USABLE_WHEN_MISSING, corrected
from dicomwatchd.config.text import plain_path

#: An inbox's name is in logs and statistics, so it is a short plain word and no path.
INBOX_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
BUCKET_NAME = r"^[A-Za-z0-9._-]{3,255}$"  # Amazon's rules are narrower, those of other stores are not
TABLE_NAME = r"^[a-zA-Z0-9_.-]{3,255}$"
TAG = r"^[A-Za-z0-9_.:/@-]+$"
SHARE = r"^(?:100|[1-9]?[0-9])%$"
#: AE titles may be more (PS3.5 table 6.2-1), but hardly any is; and it is in the log.
AE_TITLE = r"^[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,14}[A-Za-z0-9_.-])?$"
#: What a value must be that does not fit one of them, in words.
PATTERNS = {
    f"^{INBOX_NAME}$": "must be a short name of letters, digits, '_', '.' and '-', starting with a letter or digit",
    BUCKET_NAME: "must be a bucket name",
    TABLE_NAME: "must be a table name",
    TAG: "must be of letters, digits and '_.:/@-'",
    SHARE: "must be a whole percentage, such as 10%",
    AE_TITLE: "must be an AE title: at most 16 letters, digits, '_', '.', '-' and blanks within",
}

AbsolutePath = Annotated[Path, AfterValidator(plain_path)]
# Strict: a quoted number is as likely a slip as not, and "yes" must not open the door to plain http.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
WholeNumber = Annotated[int, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def _usable_charset(value: str) -> str:
    name = value if value in USABLE_WHEN_MISSING else corrected(value)
    if name is None or name not in USABLE_WHEN_MISSING:
        raise ValueError(
            "must be a defined term of DICOM, such as ISO_IR 144 or GB18030, or another character set, such as cp1251"
            " or koi8_r; see dicomwatchd.yaml(5)"
        )
    return name


Charset = Annotated[str, AfterValidator(_usable_charset)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
