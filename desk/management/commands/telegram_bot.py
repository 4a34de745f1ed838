from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from desk.management.commands.run_notifier import stop_event_on_signals
from desk.telegram.bot import Bot
from infra import clock
from notify import telegram


class Command(BaseCommand):
    help = _("Answer what the allowed chats write to the Telegram bot, until it is ended.")
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.TELEGRAM_TOKEN:
            raise CommandError(_("AEGIS_TELEGRAM_TOKEN is not set: @BotFather gives one"))
        Bot(telegram.api(), clock.now, allowed=frozenset(settings.TELEGRAM_CHATS)).run(stop_event_on_signals())
