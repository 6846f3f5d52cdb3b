"""The router of Hugging Face. The provider that it chose stands in the header `x-inference-provider`, and decides the
price; `error` is a string or an object."""

from chat.providers.openai_compatible import OpenAICompatible
from chat.providers.spec import ProviderSpec

SPEC = ProviderSpec(
    name="huggingface",
    label="Hugging Face",
    key_variable="HUGGINGFACE_API_KEY",
    key_aliases=("HF_TOKEN",),
    url_variable="HUGGINGFACE_BASE_URL",
    base_url="https://router.huggingface.co/v1",
    adapter=OpenAICompatible,
)
