"""Cerebras. So fast that a whole answer may come in one read; `time_info` tells how long it waited; its errors have no
`error` around them, in a stream they carry a `status_code`."""

from functools import partial

from chat.providers.openai_compatible import Dialect, OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="cerebras",
    label="Cerebras",
    key_variable="CEREBRAS_API_KEY",
    url_variable="CEREBRAS_BASE_URL",
    base_url="https://api.cerebras.ai/v1",
    adapter=partial(OpenAICompatible, dialect=Dialect(output_cap="max_completion_tokens", user_field="user")),
)
