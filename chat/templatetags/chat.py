"""What the chat's own templates need: `{% load chat %}`."""

from functools import lru_cache

from django import template
from django.template import Context
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from chat import catalogue, picker, receipts, sources, temperatures
from chat.models import Message
from chat.render import render

register = template.Library()

register.filter("worth", receipts.rupiah)
register.filter("source", sources.of)
register.simple_tag(receipts.rupiah_of, name="worth_of")

register.filter("provider_name", sources.provider_name)
register.filter("temperature", temperatures.shown)

REMEMBERED = 256
"""Replies that a process keeps rendered: a long chat is drawn again at every visit, and its replies do not change."""


@register.filter
def prose(text: str) -> SafeString:
    return _rendered(text, get_language())


@lru_cache(maxsize=REMEMBERED)
def _rendered(text: str, _language: str | None) -> SafeString:
    return render(text)


@register.simple_tag(takes_context=True)
def tries_of(context: Context, reply: Message) -> picker.Tries:
    """What may be done about a reply that was cut off or did not come about, with its price. Reads the database."""
    offers = context["picker"].offers if "picker" in context else catalogue.offers()
    return picker.tries(reply, offers, available=context["balance"].available)
