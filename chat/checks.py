"""What must be right before anything starts: a provider that cannot work is an error now, not at the first message."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from chat import providers


@register
def providers_can_be_configured(**_: Any) -> list[CheckMessage]:
    try:
        providers.configure(settings.PROVIDER_ENV)
    except providers.ConfigurationError as error:
        return [Error(str(error), id="chat.E001")]
    return []
