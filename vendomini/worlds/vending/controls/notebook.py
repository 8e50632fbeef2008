"""What a clerk writes on its scratchpad, for the time when old turns are gone: the cheapest supplier of each SKU."""

from __future__ import annotations

from typing import NamedTuple

KEY = "prices"


class Terms(NamedTuple):
    """What a supplier asks for one unit, the days until delivery, and the day on which this was learnt."""

    unit_price: float
    lead_days: int
    day: int


TermsBook = dict[str, dict[str, Terms]]
"""SKU → supplier → its terms."""

Notes = dict[str, tuple[str, Terms]]
"""SKU → its cheapest supplier, with the terms."""


def cheapest(book: TermsBook) -> Notes:
    """What is worth noting of a book."""
    return {sku: min(known.items(), key=_terms) for sku, known in book.items() if known}


def has_news(book: TermsBook, noted: Notes, enough: int) -> bool:
    """Whether the best terms in the book are not those in the notes, for that many SKUs."""
    spare = len(book) - enough
    for sku, known in book.items():
        if spare < 0:
            return False
        if not known or (sku in noted and noted[sku][1][:2] == min(known.values())[:2]):
            spare -= 1
    return spare >= 0


def to_text(notes: Notes) -> str:
    """``SKU03 SUP6 13.14 1 8`` is: 13.14 a unit, in 1 day, as of day 8."""
    return "; ".join(
        f"{sku} {supplier} {terms.unit_price!r} {terms.lead_days} {terms.day}"
        for sku, (supplier, terms) in notes.items()
    )


def from_text(text: str) -> Notes:
    """The notes in a text; anything else is skipped."""
    notes: Notes = {}
    for line in text.split("; "):
        try:
            sku, supplier, price, lead_days, day = line.split()
            notes[sku] = supplier, Terms(float(price), int(lead_days), int(day))
        except ValueError:
            continue
    return notes


def _terms(item: tuple[str, Terms]) -> Terms:
    return item[1]
