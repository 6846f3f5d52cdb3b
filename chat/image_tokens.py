"""How many LLM tokens an image has, by the rule of the provider whose model looks at it. Knows no database.

For reservations and the estimate beside Send, so each rule is the provider's own for a picture as we send it: at most 2048
a side (`chat.pictures`), and without a word about detail. Where a family counts in several ways, the dearest. What a
provider reports always wins. The rules of OpenAI, Claude and Gemini were compared with published counts of ten sizes of one
image (huggingface.co/datasets/JOHNISKING/image-token-cost, 2026), and are nowhere below them once reserved for.
"""

import math
import re

from usage import estimate

CLAUDE_PIXELS = 750
"""Anthropic: width × height / 750 (platform.claude.com, "Vision"). Larger ones than a model looks at are made smaller there,
and cost less."""
GEMINI_IMAGE = 1120
GEMINI_BY_TILES = re.compile(r"gemini-[12]\b")
TILE_TOKENS = 258
SMALL = 384
"""Gemini: the same for each image, 1120 by default (ai.google.dev, "Media resolution"). Before Gemini 3: 258, and for what is
larger than 384 × 384 as much for each tile (ai.google.dev, "Understand and count tokens")."""
OPENAI_TILES = (
    # Base and tokens of a tile of 512 × 512, after the image was made to fit 2048 × 2048 and its shorter side 768.
    (re.compile(r"4o-mini"), 2833, 5667),
    (re.compile(r"gpt-4|chatgpt-4"), 85, 170),
    (re.compile(r"\bo[134]\b"), 75, 150),
)
OPENAI_FACTORS = ((re.compile(r"nano"), 246), (re.compile(r"mini"), 172))
"""OpenAI's later models: patches of 32 × 32, times a factor (per cent) of the size of the model. How many patches are looked at
differs between them; where nothing is said of detail, GPT-6 looks at all that an image of ours has."""
OTHER_FACTOR = 120
LLAMA_TILE, LLAMA_TILE_TOKENS, LLAMA_TILES = 560, 1601, 4
"""Llama 3.2 Vision: the tiles of its `MllamaVisionConfig` (transformers). Llama 4 looks at far fewer tokens of each."""
LEAST = 258
DEMO = 258


def of(slug: str, *, width: int, height: int) -> int:
    """LLM tokens of an image of this size for a model, known by its slug or a provider's id of it. Never 0."""
    family = estimate.family_of(slug)
    if family == "openai":
        return _openai(slug.lower(), width, height)
    if family == "gemini":
        return _gemini(slug.lower(), width, height)
    if family == "llama":
        tiles = math.ceil(width / LLAMA_TILE) * math.ceil(height / LLAMA_TILE)
        return min(tiles, LLAMA_TILES) * LLAMA_TILE_TOKENS
    if family == "demo":
        return DEMO
    return max(LEAST, math.ceil(width * height / CLAUDE_PIXELS))


def _openai(name: str, width: int, height: int) -> int:
    for pattern, base, each in OPENAI_TILES:
        if pattern.search(name):
            return base + each * _tiles(width, height)
    patches = math.ceil(width / 32) * math.ceil(height / 32)
    factor = next((factor for pattern, factor in OPENAI_FACTORS if pattern.search(name)), OTHER_FACTOR)
    return math.ceil(patches * factor / 100)


def _tiles(width: int, height: int) -> int:
    scale = min(1, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return math.ceil(round(width * scale, 6) / 512) * math.ceil(round(height * scale, 6) / 512)


def _gemini(name: str, width: int, height: int) -> int:
    if not GEMINI_BY_TILES.search(name):
        return GEMINI_IMAGE
    if width <= SMALL and height <= SMALL:
        return TILE_TOKENS
    unit = min(768, max(256, math.floor(min(width, height) / 1.5)))
    tiles = math.ceil(width / unit) * math.ceil(height / unit)
    return tiles * TILE_TOKENS
