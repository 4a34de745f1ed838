"""Notifications: the outbox of messages, alerts, and the channels that deliver them.

The notifier process (`manage.py run_notifier`) is `monitor.watchdog.run_watchdog`: it writes the messages and sends
them through `notify.delivery`.
"""
