"""A server of the installation's own that speaks OpenAI's chat completions: vLLM, LM Studio, llama.cpp, LocalAI, or a
gateway such as LiteLLM. Most take no key."""

from chat.providers.openai_compatible import OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="compatible",
    label="OpenAI-compatible server",
    key_variable="COMPATIBLE_API_KEY",
    url_variable="COMPATIBLE_BASE_URL",
    base_url="http://127.0.0.1:8080/v1",
    adapter=OpenAICompatible,
    is_own=True,
    base_path="/v1",
)
