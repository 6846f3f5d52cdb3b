"""Replies as HTML: the Markdown that a model wrote goes in, safe HTML comes out.

Views, streams and templates call `render` for a finished text and `LiveRenderer` for one that is still being written.
This package needs no request and no database, and it is the only place in the product that may vouch for HTML
(`SafeString`). What it promises is in two sentences. Nothing a model writes becomes markup that we did not choose.
And a text that arrives in pieces ends as the same HTML as the text as a whole, however it was cut.
"""

from chat.render.live import LiveRenderer, Snapshot, Update, render

__all__ = ["LiveRenderer", "Snapshot", "Update", "render"]
