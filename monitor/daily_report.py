"""The daily report: the day in a few lines and one picture, written when its last phase is over."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from django.conf import settings
from django.db.models import Count, Q, Sum
from django.utils import translation
from django.utils.translation import gettext as _
from PIL import Image, ImageDraw, ImageFont

from aegis.lifecycle import UNSETTLED
from aegis.sessions import KST
from market import queries
from notify.alerts import DESK, Notification, write_messages
from notify.models import Message, NotificationKind
from orders.models import Reconciliation, TradeExecution, TradeOrder
from portfolio.models import AccountSnapshot

WIDTH, HEIGHT, MARGIN = 960, 480, 64
PAPER, INK, GRID, RISE, FALL = "#ffffff", "#223f49", "#d9e2e4", "#d24b3e", "#2f6fb7"
MAX_POINTS = 800


def write_report(channels: Sequence[str], *, now: datetime) -> bool:
    """Write the day's report once its last phase is over; return False if it is not due or is already written."""
    today = now.astimezone(KST).date()
    event = f"report:{today}"
    if not queries.is_day_over(now) or Message.objects.filter(event=event, channel=DESK).exists():
        return False
    with translation.override(settings.LANGUAGE_CODE):
        points = equity_by_minute(today)
        picture = draw_chart(points, f"{today:%Y-%m-%d}") if len(points) > 1 else None
        write_messages(
            [Notification(event, NotificationKind.REPORT, report_text(today), now, picture=picture)], channels, now=now
        )
    return True


def report_text(day: date) -> str:
    """Return the report of a day as text."""
    start = datetime.combine(day, time(), KST)
    fills = TradeExecution.objects.filter(executed_at__range=(start, start + timedelta(days=1)), voided_at=None)
    sums = fills.aggregate(
        count=Count("pk"),
        bought=Sum("exec_amount", filter=Q(order__order_type="BUY"), default=0),
        sold=Sum("exec_amount", filter=Q(order__order_type="SELL"), default=0),
        profit=Sum("realized_profit", default=0),
        cost=Sum("fee", default=0) + Sum("tax", default=0),
    )
    orders = TradeOrder.objects.filter(order_date=day)
    reconciliations = Reconciliation.objects.filter(at__range=(start, start + timedelta(days=1)))
    figures = {
        "day": f"{day:%Y-%m-%d}",
        "orders": orders.count(),
        "refused": orders.filter(status="REJECTED").count(),
        "open": orders.filter(status__in=UNSETTLED).count(),
        "corrected": reconciliations.aggregate(total=Sum("corrected", default=0))["total"],
        **sums,
    }
    lines = [
        _("The day {day}").format(**figures),
        _("Orders {orders:,} (refused {refused:,}, open {open:,}), fills {count:,}").format(**figures),
        _("Bought {bought:,} won, sold {sold:,} won").format(**figures),
        _("Realised profit {profit:+,} won, commission and tax {cost:,} won").format(**figures),
    ]
    if figures["corrected"]:
        lines.append(_("Corrected by the broker's list: {corrected:,} orders").format(**figures))
    newest = AccountSnapshot.objects.filter(timestamp__lt=start + timedelta(days=1)).order_by("-timestamp").first()
    if newest:
        template = _("Total asset {total:,} won ({change:+,} won today)")
        lines.append(template.format(total=newest.total_asset, change=newest.net_profit_today))
    return "\n".join(lines)


def equity_by_minute(day: date) -> list[tuple[datetime, int]]:
    """Return the total asset of a day in won, at most one point per minute and `MAX_POINTS` in all."""
    start = datetime.combine(day, time(), KST)
    rows = AccountSnapshot.objects.filter(timestamp__range=(start, start + timedelta(days=1))).order_by("timestamp")
    by_minute = {
        at.replace(second=0, microsecond=0): total for at, total in rows.values_list("timestamp", "total_asset")
    }
    points = list(by_minute.items())
    return points[:: max(1, math.ceil(len(points) / MAX_POINTS))]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps a range of values onto pixels."""

    low: float
    high: float
    start: int
    end: int

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / ((self.high - self.low) or 1) * (self.end - self.start)


def draw_chart(points: Sequence[tuple[datetime, int]], title: str) -> bytes:
    """Return a PNG with the total asset as a line: red if it rose over the day, else blue, as on Korean screens."""
    values = [value for _at, value in points]
    spread = max(values) - min(values) or max(1, abs(values[0]) // 1000)
    x_scale = Scale(points[0][0].timestamp(), points[-1][0].timestamp(), MARGIN * 2, WIDTH - MARGIN // 2)
    y_scale = Scale(min(values) - spread * 0.08, max(values) + spread * 0.08, HEIGHT - MARGIN, MARGIN)
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    for step in range(5):
        value = min(values) + (max(values) - min(values)) * step / 4
        pen.line([(x_scale.start, y_scale.at(value)), (x_scale.end, y_scale.at(value))], GRID)
        pen.text((x_scale.start - 8, y_scale.at(value)), f"{value:,.0f}", INK, font, anchor="rm")
    for at, anchor in ((points[0][0], "la"), (points[-1][0], "ra")):
        pen.text((x_scale.at(at.timestamp()), HEIGHT - MARGIN + 10), f"{at.astimezone(KST):%H:%M}", INK, font, anchor)
    pen.text((x_scale.start, MARGIN // 3), f"AEGIS  {title}  {values[-1]:,}  ({values[-1] - values[0]:+,})", INK, font)
    line = [(x_scale.at(at.timestamp()), y_scale.at(value)) for at, value in points]
    pen.line(line, RISE if values[-1] >= values[0] else FALL, width=3, joint="curve")
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
