"""The desk, where operators work: the dashboard, the admin and the Telegram bot."""
