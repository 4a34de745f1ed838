"""Filters that format figures on our own pages."""

from datetime import datetime
from decimal import Decimal

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()
Number = int | float | Decimal


@register.filter
def won(value: Number | None) -> str:
    """Return whole won, or shares, with commas."""
    return "-" if value is None else f"{value:,.0f}"


@register.filter
def signed(value: Number | None, digits: int = 0) -> SafeString | str:
    """Return a gain in red with a plus, a loss in blue with a minus, as Koreans read them."""
    if value is None:
        return "-"
    rounded: Number = value.__round__(digits)
    tone = "up" if rounded > 0 else "down" if rounded < 0 else ""
    return format_html('<span class="{}">{}</span>', tone, f"{rounded:{'+' if rounded else ''},.{digits}f}")


@register.filter
def points(value: Number | None) -> str:
    """Return index points with two decimals."""
    return "-" if value is None else f"{value:,.2f}"


@register.filter
def epoch(moment: datetime | str | None) -> str:
    """Return a moment in POSIX seconds, from which the page's script counts; empty if there is no moment."""
    return f"{moment.timestamp():.0f}" if isinstance(moment, datetime) else ""


@register.filter
def side_tone(order_type: str) -> str:
    """Return the colour class of a side: red for a buy, blue for a sale."""
    return "up" if order_type == "BUY" else "down"
