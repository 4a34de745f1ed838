"""Monitoring: health, metrics, probes, the notifier's loop, the dead-man alert, the daily report, retention."""
