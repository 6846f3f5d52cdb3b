"""The roof of the product, and under `aleph.accounts` its ground. Tasks are sent through the application loaded here:
whoever imports Django's settings has it, so a bell is never rung at Celery's default broker."""

from aleph.celery import app as celery_app

__all__ = ["celery_app"]
