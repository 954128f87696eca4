"""Values that mean the same as one text, so that an index finds them however they were written.

A normalisation never changes: a better one gets a version of its own, whose tokens begin otherwise. E-mail
addresses and phone numbers are in their second. A search looks for tokens of both, and rotating the index
key (``kilo fle rotate plan --kind reindex``) writes those of the second for all.

Left out: guessing a country for a number that has none, and what single mail systems take for the same
(dots, plus signs).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

import idna

from kilo.fle.errors import FieldError
from kilo.fle.frames import clears_frames

Normalisation = Literal["email", "phone", "text"]

_LONGEST = 1000
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_SEPARATORS = str.maketrans("", "", " \t-./()\u00a0\u2010\u2011\u2012\u2013")
_ADDRESS_LITERAL = re.compile(r"\[(?:ipv6:)?[0-9a-f.:]{2,45}\]")
_NEEDS_COUNTRY = "a phone number needs its country code, as in +46 70 123 45 67"


class NotNormalisable(FieldError):
    """The value is no e-mail address, or no phone number in international form."""

    reason = "not-normalisable"
    text = "the value can't be normalised for the index"


@clears_frames
def normalise(kind: Normalisation, value: str) -> str:
    """Bring values that mean the same to the same text.

    ``email``: NFKC, without surrounding space, marks of direction and ``mailto:``, lower case; the domain in
    ASCII by IDNA 2008 with the mapping of UTS 46, non-transitional: ``straße.de`` is not ``strasse.de``.
    Most mail systems ignore the local part's case, and an index that does not finds too little. ``phone``:
    E.164 (ITU-T) by the numbering plans of the ``phonenumbers`` library, so that a trunk zero goes where a
    country has one; an extension stays, as ``;ext=12`` (RFC 3966). A number without its country can't be
    searched for. ``text``: NFKC alone.

    Raises:
        NotNormalisable: the value is not of that kind; the reason is given, and the value is not.
    """
    if kind == "text":
        return unicodedata.normalize("NFKC", value)
    if len(value) > _LONGEST:
        raise NotNormalisable(detail=f"longer than {_LONGEST} characters")
    # What pasting brings along: marks of direction, joiners, a byte order mark.
    seen = "".join(each for each in value if unicodedata.category(each) != "Cf")
    folded = unicodedata.normalize("NFKC", seen).strip()
    return _email(folded) if kind == "email" else _phone(folded)


def _email(folded: str) -> str:
    lower = unicodedata.normalize("NFKC", folded.lower()).removeprefix("mailto:")
    local, at, domain = lower.rpartition("@")
    if not at or not local or not domain or any(each.isspace() for each in local + domain):
        raise NotNormalisable(detail="an e-mail address has a local part, @ and a domain")
    if _ADDRESS_LITERAL.fullmatch(domain):
        return f"{local}@{domain}"
    try:
        name = idna.encode(domain.removesuffix("."), uts46=True, std3_rules=True, transitional=False)
        return f"{local}@{name.decode('ascii')}"
    except (UnicodeError, IndexError):
        # idna's errors quote the name.
        pass
    raise NotNormalisable(detail="the domain is not valid (IDNA 2008)")


def _phone(folded: str) -> str:
    # Here, for it is large and most processes never see a number.
    import phonenumbers  # noqa: PLC0415

    dialled = re.sub(r"^tel:\s*", "", folded, flags=re.IGNORECASE)
    # A minus sign and every dash.
    dialled = "".join(
        "-" if each == "\u2212" or unicodedata.category(each) == "Pd" else each for each in dialled
    )
    if re.match(r"[(\s]*00", dialled):
        dialled = re.sub(r"^[(\s]*00", "+", dialled)
    if not re.match(r"[(\s]*\+", dialled):
        raise NotNormalisable(detail=_NEEDS_COUNTRY)
    try:
        number = phonenumbers.parse(dialled, None)
    except phonenumbers.NumberParseException:
        number = None
    if number is None:
        raise NotNormalisable(detail=_NEEDS_COUNTRY)
    if not phonenumbers.is_possible_number(number):
        raise NotNormalisable(detail="the country has no phone numbers of that length")
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return f"{written};ext={number.extension}" if number.extension else written


@clears_frames
def normalise_before(kind: Normalisation, value: str) -> str:
    """The first version: IDNA 2003 (RFC 3490), and numbers whose separators go and nothing else.

    Raises:
        NotNormalisable: the value is not of that kind.
    """
    folded = unicodedata.normalize("NFKC", value)
    if kind == "text":
        return folded
    if kind == "email":
        local, at, domain = folded.strip().lower().rpartition("@")
        if not at or not local or not domain or any(each.isspace() for each in local + domain):
            raise NotNormalisable(detail="an e-mail address has a local part, @ and a domain")
        try:
            return f"{local}@{domain.encode('idna').decode('ascii')}"
        except UnicodeError:
            pass
        raise NotNormalisable(detail="the domain is not valid")
    digits = folded.strip().translate(_PHONE_SEPARATORS)
    number = "+" + digits[2:] if digits.startswith("00") else digits
    if not _E164.fullmatch(number):
        raise NotNormalisable(detail=_NEEDS_COUNTRY)
    return number
