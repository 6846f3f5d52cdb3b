"""OpenRouter. It sends comments while it waits, names the provider that answers in each chunk, and tells in `usage.cost`
what it charged us; an error may come in a body with status 200."""

from functools import partial

from chat.providers.openai_compatible import Dialect, OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="openrouter",
    label="OpenRouter",
    key_variable="OPENROUTER_API_KEY",
    url_variable="OPENROUTER_BASE_URL",
    base_url="https://openrouter.ai/api/v1",
    adapter=partial(OpenAICompatible, dialect=Dialect(user_field="user")),
)
