"""The prices a shop opens with. For `manage.py seed`; from then on the rows are the staff's.

USD per million LLM tokens: input, cached input, cache write, output, cache write for an hour. Sources: the pricing
tables of the token tracking plan (S3), and the published prices of November 2026 as genai-prices 0.2.3 and LiteLLM
1.109.1 list them. What a row cannot say (public holidays, who answers behind a router), its `source` does.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal

from usage.models import MIDNIGHT, ModelPrice

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
PLAN = "token tracking plan"
GP = "genai-prices 0.2.3"
LL = "LiteLLM 1.109.1"
PEAK = f"{GP}; Chinese public holidays are off-peak, which is not in this row"
OFF_PEAK = f"{GP}; off-peak"
OF_ROUTER = f"{GP}; the dearest provider behind the router (Together), others from 0.135 / 0.40"
RETIRED_2025 = f"{GP}; retired 2025"
RETIRES_IN_NOVEMBER = f"{GP}; retires 2026-11-30"


def usd(figure: str) -> Decimal | None:
    """A figure of the list; "-" where the provider has no price of its own for this class."""
    return None if figure == "-" else Decimal(figure)


@dataclass(frozen=True, slots=True)
class Listing:
    """`figures`: "input cached-input cache-write output", and cache write for an hour where that has a price."""

    provider: str
    model: str
    figures: str
    source: str
    valid_from: datetime = BEGINNING
    valid_to: datetime | None = None
    above_input_tokens: int = 0
    weekdays: str = ""
    from_utc: time = MIDNIGHT
    to_utc: time = MIDNIGHT

    @property
    def key(self) -> tuple[object, ...]:
        """No two rows of the table have the same."""
        return tuple(getattr(self, name) for name in (*ModelPrice.LANE, "valid_from"))

    def row(self) -> ModelPrice:
        fresh, cached, written, output, *hour = map(usd, self.figures.split())
        assert fresh is not None
        assert output is not None
        return ModelPrice(
            provider=self.provider,
            model=self.model,
            input_usd_per_million=fresh,
            cached_input_usd_per_million=cached,
            cache_write_usd_per_million=written,
            cache_write_1h_usd_per_million=hour[0] if hour else None,
            output_usd_per_million=output,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            above_input_tokens=self.above_input_tokens,
            weekdays=self.weekdays,
            from_utc=self.from_utc,
            to_utc=self.to_utc,
            source=self.source,
        )


def by_prompt(*base: object, above: int, long: str) -> tuple[Listing, Listing]:
    """A price, and the one of calls whose prompt is above a number of tokens."""
    listing = Listing(*base)  # type: ignore[arg-type]
    return listing, replace(listing, figures=long, above_input_tokens=above)


def by_hour(*base: object, peak: str) -> tuple[Listing, ...]:
    """A price, and the one of DeepSeek's peak hours."""
    listing = Listing(*base)  # type: ignore[arg-type]
    in_peak = replace(listing, figures=peak, source=PEAK, weekdays="12345")
    hours = ((time(1), time(4)), (time(6), time(10)))
    return listing, *(replace(in_peak, from_utc=start, to_utc=end) for start, end in hours)


TRACKING_PLAN = (
    Listing("openai", "gpt-4", "30 - - 60", f"{PLAN}; gone 2026-10-23"),
    Listing("openai", "gpt-4-turbo", "10 - - 30", f"{PLAN}; gone 2026-10-23"),
    Listing("openai", "gpt-3.5-turbo", "0.50 - - 1.50", f"{PLAN}; gone 2026-10-23"),
    Listing("cerebras", "llama3.1-8b", "0.10 - - 0.10", f"{PLAN}; retired 2026-05-27"),
    Listing("cerebras", "llama3.1-70b", "0.60 - - 0.60", f"{PLAN}; retired 2025-01-17"),
    Listing("together", "llama-3.1-70b", "0.88 - - 0.88", f"{PLAN}; retired 2026-02-25"),
    Listing("ollama", "*", "0 - - 0", f"{PLAN}; runs on our own machine"),
    Listing("demo", "*", "0 - - 0", "runs on our own machine"),
)

OLDER_MODELS = (
    Listing("openai", "gpt-4o", "2.50 1.25 - 10", f"{GP}; shutdown 2027-01-14"),
    Listing("openai", "gpt-4o-mini", "0.15 0.075 - 0.60", f"{GP}; shutdown 2027-01-14"),
    Listing("openai", "gpt-4.1", "2 0.50 - 8", f"{GP}; shutdown 2027-01-14"),
    Listing("openai", "text-embedding-3-small", "0.02 - - 0", GP),
    Listing("openai", "text-embedding-3-large", "0.13 - - 0", GP),
    Listing("anthropic", "claude-3.5-sonnet", "3 0.30 3.75 15 6", f"{GP}; retired 2025-10-28"),
    Listing("anthropic", "claude-3-haiku", "0.25 0.03 0.30 1.25 0.50", f"{GP}; retired 2026-04-20"),
    *by_prompt(
        "anthropic",
        "claude-sonnet-4-5",
        "3 0.30 3.75 15 6",
        RETIRES_IN_NOVEMBER,
        above=200_000,
        long="6 0.60 7.50 22.50 12",
    ),
    Listing("gemini", "gemini-pro", "0.125 - - 0.375", f"{GP}; retired 2025"),
    *by_prompt(
        *("gemini", "gemini-1.5-pro", "1.25 0.3125 - 5", RETIRED_2025), above=128_000, long="2.50 0.625 - 10"
    ),
    *by_prompt(
        *("gemini", "gemini-1.5-flash", "0.075 0.01875 - 0.30", RETIRED_2025),
        above=128_000,
        long="0.15 0.0375 - 0.60",
    ),
    *by_prompt(
        *("gemini", "gemini-flash", "0.075 0.01875 - 0.30", RETIRED_2025),
        above=128_000,
        long="0.15 0.0375 - 0.60",
    ),
    Listing("gemini", "gemini-embedding-001", "0.15 - - 0", f"{GP}; until 2028-05-14"),
    Listing("gemini", "gemini-embedding-2", "0.20 - - 0", GP),
    Listing("deepseek", "deepseek-chat", "0.28 0.028 - 0.42", f"{LL}; retired 2026-07-24"),
    Listing("deepseek", "deepseek-coder", "0.14 0.014 - 0.28", f"{LL}; retired"),
    Listing("huggingface", "meta-llama/Llama-3.3-70B-Instruct", "1.04 - - 1.04", OF_ROUTER),
    *(
        Listing("huggingface", f"meta-llama/Llama-3.3-70B-Instruct:{provider}", figures, GP)
        for provider, figures in (
            ("novita", "0.135 - - 0.40"),
            ("groq", "0.59 - - 0.79"),
            ("sambanova", "0.60 - - 1.20"),
            ("fireworks-ai", "0.90 - - 0.90"),
            ("together", "1.04 - - 1.04"),
        )
    ),
    Listing(
        "together",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "1.04 - - 1.04",
        f"{LL}; removed from serverless 2026-10-22",
    ),
    Listing(
        "together",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "0.18 - - 0.18",
        f"{GP}; retired 2026-03-06",
    ),
    Listing(
        "together",
        "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo",
        "0.88 - - 0.88",
        f"{GP}; retired 2026-02-25",
    ),
    Listing("cerebras", "llama-3.3-70b", "0.85 - - 1.20", f"{GP}; retired 2026-02-16"),
    Listing(
        "openrouter",
        "meta-llama/llama-3.3-70b-instruct",
        "0.59 0.295 - 0.79",
        GP,
        valid_from=datetime(2026, 11, 9, tzinfo=UTC),
    ),
)

CURRENT_MODELS = (
    *by_prompt(
        *("openai", "gpt-6-luna", "0.10 0.01 0.125 0.50", GP, NOVEMBER),
        above=272_000,
        long="0.20 0.02 0.25 0.75",
    ),
    *by_prompt(
        *("openai", "gpt-6.1-terra", "1 0.05 1.25 5", GP, NOVEMBER), above=272_000, long="2 0.10 2.50 7.50"
    ),
    *by_prompt(*("openai", "gpt-6.1-sol", "2 0.10 2.50 10", GP, NOVEMBER), above=272_000, long="4 0.20 5 15"),
    *by_prompt(*("openai", "gpt-6-astra", "10 1 12.50 50", GP, NOVEMBER), above=272_000, long="20 2 25 75"),
    *by_prompt(
        *("anthropic", "claude-haiku-5-5", "0.10 0.01 0.125 0.50 0.20", GP, NOVEMBER),
        above=100_000,
        long="0.50 0.05 0.625 2.50 1",
    ),
    Listing("anthropic", "claude-sonnet-5-5", "2 0.10 2.50 10 4", GP, NOVEMBER),
    Listing("anthropic", "claude-opus-5-5", "4 0.20 5 20 8", GP, NOVEMBER),
    Listing("anthropic", "claude-fable-5-2", "8 0.20 10 40 16", GP, NOVEMBER),
    Listing("gemini", "gemini-4-argon", "2 0.10 - 10", f"{GP}; introductory", NOVEMBER, DECEMBER),
    Listing("gemini", "gemini-4-argon", "4 0.20 - 20", f"{GP}; announced", DECEMBER),
    Listing("gemini", "gemini-3.8-flash", "0.75 0.075 - 3.75", f"{GP}; introductory", NOVEMBER, NEW_YEAR),
    Listing("gemini", "gemini-3.8-flash", "1.50 0.15 - 7.50", f"{GP}; announced", NEW_YEAR),
    Listing("gemini", "gemini-3.5-flash-lite", "0.30 0.03 - 2.50", GP, NOVEMBER),
    Listing("gemini", "gemini-3.1-flash-lite", "0.25 0.025 - 1.50", f"{GP}; until 2027-05-07", NOVEMBER),
    Listing("gemini", "gemini-2.5-flash-lite", "0.10 0.01 - 0.40", GP, NOVEMBER),
    *by_hour("deepseek", "deepseek-flash", "0.15 0.003 - 0.60", OFF_PEAK, NOVEMBER, peak="0.30 0.006 - 1.20"),
    *by_hour(
        "deepseek", "deepseek-v4-pro", "0.66 0.022 - 1.98", OFF_PEAK, NOVEMBER, peak="1.32 0.044 - 3.96"
    ),
    Listing("cerebras", "gpt-oss-120b", "0.35 - - 0.75", GP, NOVEMBER),
    Listing("cerebras", "qwen-3.8-27b", "0.99 - - 1.49", GP, NOVEMBER),
)

OPENING = TRACKING_PLAN + OLDER_MODELS + CURRENT_MODELS


def seed() -> int:
    """Add the prices that are missing, by provider, model, size, window and start; the number of them. What is there
    stays as the staff left it."""
    present = set(ModelPrice.objects.values_list(*ModelPrice.LANE, "valid_from"))
    missing = [listing.row() for listing in OPENING if listing.key not in present]
    # Two machines may be opened at the same moment.
    ModelPrice.objects.bulk_create(missing, ignore_conflicts=True)
    return len(missing)
