"""DeepSeek. Thinking is on unless it is switched off; cached input is `prompt_cache_hit_tokens`; under load it sends
comments, or empty lines before a whole answer."""

from functools import partial

from chat.providers.openai_compatible import Dialect, OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="deepseek",
    label="DeepSeek",
    key_variable="DEEPSEEK_API_KEY",
    url_variable="DEEPSEEK_BASE_URL",
    base_url="https://api.deepseek.com",
    adapter=partial(
        OpenAICompatible,
        dialect=Dialect(user_field="user_id", extra={"thinking": {"type": "disabled"}}),
    ),
)
