"""Numbers that states give to people, told from other numbers by their form and their check digits.

Each has to be precise: what is taken for one is concealed wherever it stands. So a form without check digits counts only
as people write it (`078-05-1120`), and numbers that one in ten others could be (such as a Dutch BSN) are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_FORMS: Mapping[str, str] = {
    # United States, social security number; Sweden, personnummer.
    "ssn": r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
    "personnummer": r"[0-9]{6}[-+][0-9]{4}",
    # United Kingdom, national insurance number.
    "nino": r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
    # France, numéro d'inscription au répertoire.
    "nir": r"[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
    # Germany, steuerliche Identifikationsnummer; Poland, PESEL.
    "eleven": r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}",
    # Spain, DNI and NIE.
    "dni": r"(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-HJ-NP-TV-Z]",
    # Italy, codice fiscale.
    "codice": r"[A-Z]{6}[0-9L-NP-V]{2}[ABCDEHLMPRST][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]",
    # Switzerland, AHV number.
    "ahv": r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}",
    # Brazil, CPF.
    "cpf": r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}",
}
PATTERN = rf"\b(?:{'|'.join(_FORMS.values())})\b"
"""What may be one; `national_id` says whether it is."""


def national_id(text: str) -> int:
    """How much of a candidate is a number of a person: all of it or, with 0, nothing."""
    compact = "".join(char for char in text if char.isalnum())
    return len(text) if any(is_one(text, compact) for is_one in _TESTS) else 0


def _ssn(text: str, _: str) -> bool:
    area, group, serial = text.split("-") if text.count("-") == 2 else ("", "", "")
    return len(area) == 3 and area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def _personnummer(text: str, compact: str) -> bool:
    return text[6:7] in ("-", "+") and len(compact) == 10 and _is_day(compact[2:4], compact[4:6]) and _luhn(compact)


def _nino(_: str, compact: str) -> bool:
    return compact[:2].isalpha() and len(compact) == 9 and compact[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _nir(_: str, compact: str) -> bool:
    if len(compact) != 15:
        return False
    # The two departments of Corsica, as the key has them.
    number = compact[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(compact[13:])


def _steuer_id(_: str, compact: str) -> bool:
    if len(compact) != 11 or not compact.isdigit() or compact[0] == "0":
        return False
    counts = sorted(compact[:10].count(digit) for digit in set(compact[:10]))
    if counts[-1] not in (2, 3) or counts[-2] != 1:
        return False
    product = 10
    for digit in compact[:10]:
        product = (int(digit) + product) % 10 or 10
        product = product * 2 % 11
    return (11 - product) % 10 == int(compact[10])


def _pesel(text: str, compact: str) -> bool:
    if len(compact) != 11 or text != compact or not compact.isdigit():
        return False
    month = int(compact[2:4])
    century = month - 20 if month > 20 else month
    if not _is_day(f"{century:02}", compact[4:6]):
        return False
    weighted = sum(int(digit) * weight for digit, weight in zip(compact, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=False))
    return (10 - weighted % 10) % 10 == int(compact[10])


def _dni(_: str, compact: str) -> bool:
    if len(compact) != 9 or not compact[-1].isalpha():
        return False
    number = {"X": "0", "Y": "1", "Z": "2"}.get(compact[0], compact[0]) + compact[1:8]
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == compact[8]


def _codice(_: str, compact: str) -> bool:
    if len(compact) != 16 or not compact[:6].isalpha():
        return False
    total = sum(
        _ODD[_rank(char)] if at % 2 == 0 else _rank(char)  # Counted from one, the first is odd.
        for at, char in enumerate(compact[:15])
    )
    return chr(ord("A") + total % 26) == compact[15]


_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _rank(char: str) -> int:
    return int(char) if char.isdigit() else ord(char) - ord("A")


def _ahv(text: str, compact: str) -> bool:
    if not text.startswith("756.") or len(compact) != 13:
        return False
    return sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(compact)) % 10 == 0


def _cpf(text: str, compact: str) -> bool:
    if text[3:4] != "." or len(compact) != 11 or len(set(compact)) == 1:
        return False
    return all(
        sum(int(digit) * (length + 1 - at) for at, digit in enumerate(compact[:length])) * 10 % 11 % 10
        == int(compact[length])
        for length in (9, 10)
    )


def _is_day(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


_TESTS: tuple[Callable[[str, str], bool], ...] = (
    _ssn,
    _personnummer,
    _nino,
    _nir,
    _steuer_id,
    _pesel,
    _dni,
    _codice,
    _ahv,
    _cpf,
)
