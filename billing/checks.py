"""What must be right before anything starts: a gateway that cannot work is an error now, not at the first payment."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from billing import gateways


@register
def gateways_can_be_configured(**_: Any) -> list[CheckMessage]:
    try:
        gateways.configure(settings.GATEWAY_ENV)
    except gateways.ConfigurationError as error:
        return [Error(str(error), id="billing.E001")]
    return []
