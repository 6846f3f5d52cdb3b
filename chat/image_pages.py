"""Images in the browser: sent up while a message is being written, shown to their owner and to nobody else.

The bytes of an image are ours, not those that came (`chat.pictures`), and are sent so that no browser takes them for
anything else: a fixed kind, no sniffing, no script, no other site.
"""

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.shortcuts import render

from aleph import ids, rates
from aleph.problems import NotFound, Problem, noting_delay
from chat import attachments
from chat.models import Attachment
from chat.pages import Request, fragment, page

NOTICE = "#composer-notice"
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg"}


@page("GET", "POST")
def drafts(request: Request) -> HttpResponse:
    """POST takes in one image and shows it as it stands in the composer; GET shows those that waited there."""
    if request.method != "POST":
        found = attachments.drafts(request.user, request.GET.getlist("id"))
        return render(request, "chat/_thumbs.html", {"images": found})
    upload = request.FILES.get("images")
    try:
        rates.take(request, "upload")
        image = attachments.add(user=request.user, upload=upload)
    except Problem as problem:
        if not request.htmx:
            raise
        told = {"text": problem.message, "reason": upload.name if upload else ""}
        edited = request.POST.get("edited", "")
        place = f"#{edited}-notice" if ids.is_one(edited, "msg") else NOTICE
        answer = fragment(request, "chat/_notice.html", told, into=place, status=problem.status)
        return noting_delay(answer, problem)
    return render(request, "chat/_thumbs.html", {"images": [image]}, status=201)


@page("GET")
def image_page(request: Request, attachment_id: str) -> HttpResponse:
    """An image, large."""
    context = {"image": attachments.get(request.user, attachment_id)}
    if request.htmx:
        return fragment(request, "chat/_image.html", context, into="#dialogs")
    return render(request, "chat/dialog.html", {**context, "fragment": "chat/_image.html"})


def image(request: HttpRequest, attachment_id: str) -> HttpResponse:
    """The bytes. A browser may keep them but asks each time whether it still may show them."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    if not request.user.is_authenticated:
        return HttpResponse(status=404)
    try:
        found = attachments.get(request.user, attachment_id)
    except NotFound:
        return HttpResponse(status=404)
    headers = {"Cache-Control": "private, no-cache", "ETag": f'"{found.pk}"', "Vary": "Cookie"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(attachments.read(found), headers={**headers, **_headers(found)})


def _headers(found: Attachment) -> dict[str, str]:
    name = f"{found.pk}.{EXTENSIONS[found.media_type]}"
    return {
        "Content-Type": found.media_type,
        "Content-Disposition": f'inline; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
