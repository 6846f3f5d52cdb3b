"""The web process: a plain ASGI application that any server can run."""

import os
import warnings
from typing import cast

from django.core.asgi import get_asgi_application

from aleph import collector
from aleph.limits import Application, limited

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")
# WhiteNoise answers with small files, which Django reads at once; that is how it is meant here.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

MAX_BODY_BYTES = 4 * 1024 * 1024

application = limited(cast("Application", get_asgi_application()), max_bytes=MAX_BODY_BYTES)
collector.settle()
