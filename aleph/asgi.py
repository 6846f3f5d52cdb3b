"""The web process: a plain ASGI application that any server can run."""

import os
import warnings

import django

from aleph import collector, handler
from aleph.limits import limited
from aleph.parting import parting

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")
# WhiteNoise answers with small files, which Django reads at once; that is how it is meant here.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_IMAGES = 4
UPLOADS = (
    (r"/(api/v1/)?chat/attachments", MAX_IMAGE_BYTES + 64 * 1024),
    # Forms without a script bring all images of a message at once.
    (r"/chat/(\w+/)?turns|/chat/messages/\w+/edits", MAX_IMAGES * MAX_IMAGE_BYTES + MAX_BODY_BYTES),
)

django.setup(set_prefix=False)

from chat import viewers  # noqa: E402 - Django's models are there from now on

application = limited(handler.application(), max_bytes=MAX_BODY_BYTES, uploads=UPLOADS)
application = parting(application, farewell=viewers.send_away)
collector.settle()
