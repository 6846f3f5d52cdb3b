"""Together AI. A prompt that is too long is cut in silence unless that is refused; its finish reason may be `eos`; usage
has totals only."""

from functools import partial

from chat.providers.openai_compatible import Dialect, OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="together",
    label="Together AI",
    key_variable="TOGETHER_API_KEY",
    url_variable="TOGETHER_BASE_URL",
    base_url="https://api.together.xyz/v1",
    adapter=partial(OpenAICompatible, dialect=Dialect(extra={"context_length_exceeded_behavior": "error"})),
)
