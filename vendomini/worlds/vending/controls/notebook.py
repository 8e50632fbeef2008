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


def news(book: TermsBook, noted: Notes) -> int:
    """The number of SKUs whose best terms in the book are not those in the notes."""
    count = 0
    for sku, known in book.items():
        if known:
            best = min(known.values())
            count += sku not in noted or noted[sku][1][:2] != best[:2]
    return count


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
