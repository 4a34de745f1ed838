"""Configuration of the project: settings, Celery, the beat schedule, URLs, logging."""

from config.celery import app as celery_app

__all__ = ("celery_app",)
