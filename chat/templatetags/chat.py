"""What the chat's own templates need: `{% load chat %}`."""

from functools import lru_cache

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from chat import picker, receipts
from chat.models import ChatModel
from chat.render import render

register = template.Library()

register.filter("worth", receipts.rupiah)

REMEMBERED = 256
"""Replies that a process keeps rendered: a long chat is drawn again at every visit, and its replies do not change."""


@register.filter
def prose(text: str) -> SafeString:
    return _rendered(text, get_language())


@lru_cache(maxsize=REMEMBERED)
def _rendered(text: str, _language: str | None) -> SafeString:
    return render(text)


@register.simple_tag
def instead_of(model: ChatModel | None) -> ChatModel | None:
    """A model to try where `model` failed; None where no other is available."""
    return picker.instead_of(model)
