"""The web process: a plain ASGI application that any server can run."""

import os
import warnings

import django

from aleph import collector, handler
from aleph.limits import limited

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")
# WhiteNoise answers with small files, which Django reads at once; that is how it is meant here.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

MAX_BODY_BYTES = 4 * 1024 * 1024

django.setup(set_prefix=False)
application = limited(handler.application(), max_bytes=MAX_BODY_BYTES)
collector.settle()
