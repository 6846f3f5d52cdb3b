"""The LLM tokens of one call. `usage.meter` gives this name to the outside."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """LLM tokens in disjoint classes. None: nobody said, which is not 0.

    `flagged`: what the provider said contradicts itself, and was made to fit. `cache_write_1h` is what was
    written to be kept for an hour, `cache_write` what was written for the usual time.
    """

    fresh_input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    visible_output: int | None = None
    reasoning: int | None = None
    flagged: bool = False
    cache_write_1h: int | None = None

    @property
    def input_tokens(self) -> int:
        """The sum of the classes of input that are known."""
        written = (self.cache_write or 0) + (self.cache_write_1h or 0)
        return (self.fresh_input or 0) + (self.cache_read or 0) + written

    @property
    def output_tokens(self) -> int:
        return (self.visible_output or 0) + (self.reasoning or 0)
