"""OpenAI. Its own of what all the others copied: the output limit is `max_completion_tokens` (which includes reasoning),
padding can be declined, and the hashed user goes into `safety_identifier`."""

from functools import partial

from chat.providers.openai_compatible import Dialect, OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="openai",
    label="OpenAI",
    key_variable="OPENAI_API_KEY",
    url_variable="OPENAI_BASE_URL",
    base_url="https://api.openai.com/v1",
    adapter=partial(
        OpenAICompatible,
        dialect=Dialect(
            output_cap="max_completion_tokens", include_obfuscation=False, user_field="safety_identifier"
        ),
    ),
)
