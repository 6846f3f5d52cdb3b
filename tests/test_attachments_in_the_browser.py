"""Images as people attach them: chosen, pasted and dropped, taken out again, sent, opened; and what is refused."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from aleph import ids
from chat import attachments
from chat.models import Message
from tests import images, people
from tests.browser import Browser
from tests.product import simulated_model
from tests.stories_of_chat import until
from tests.stories_of_images import seeing_model

PASTE = """async bytes => {
  const transfer = new DataTransfer()
  transfer.items.add(new File([new Uint8Array(bytes)], 'pasted.png', { type: 'image/png' }))
  const field = document.getElementById('text')
  field.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true }))
}"""
DROP = """async bytes => {
  const transfer = new DataTransfer()
  transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }))
  for (const name of ['dragenter', 'dragover', 'drop']) {
    document.querySelector('.composer').dispatchEvent(new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true }))
  }
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kawah.png").write_bytes(images.picture(size=(640, 480)))
    (tmp_path / "foto.jpg").write_bytes(images.of_a_phone())
    (tmp_path / "fake.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def composer(browser: Browser, model: str, **options: object) -> Page:
    page = browser.page(user=people.alice(), **options)
    page.context.add_cookies([{"name": "model", "value": model, "url": browser.product.url}])
    page.goto("/")
    return page


def thumbs(page: Page, number: int) -> None:
    expect(page.locator("#attachments .thumb")).to_have_count(number)


def test_images_are_chosen_pasted_dropped_and_sent(browser: Browser, folder: Path, simulator: object) -> None:
    page = composer(browser, seeing_model())
    page.set_input_files("[data-attach]", [folder / "kawah.png", folder / "foto.jpg"])
    thumbs(page, 2)
    page.evaluate(PASTE, list(images.picture(colour="blue")))
    thumbs(page, 3)
    page.evaluate(DROP, list(images.picture(colour="green")))
    thumbs(page, 4)
    page.set_input_files("[data-attach]", [folder / "kawah.png"])
    expect(page.locator("#composer-notice")).to_contain_text("at most 4 images")
    page.locator(".thumb__verb").first.click()
    thumbs(page, 3)
    with page.expect_response(lambda answer: "these" in (answer.request.post_data or "")):
        page.fill("#text", "What are these?")
    expect(page.locator("#composer-estimate")).to_contain_text("at most")

    page.reload()
    thumbs(page, 3)
    page.wait_for_load_state("networkidle")
    page.click("[data-send]")
    expect(page.locator(".message__images img")).to_have_count(3)
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    until(lambda: page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)"))
    thumbs(page, 0)

    page.set_input_files("[data-attach]", [folder / "kawah.png"])
    thumbs(page, 1)
    page.fill("#text", "And this?")
    page.wait_for_load_state("networkidle")
    page.click("[data-send]")
    expect(page.locator(".message__images img")).to_have_count(4)
    thumbs(page, 0)
    expect(page.locator("#text")).to_have_value("")
    page.reload()
    thumbs(page, 0)

    page.locator(".message__images a").last.click()
    expect(page.locator("dialog.image")).to_contain_text("640 × 480")
    page.keyboard.press("Escape")
    expect(page.locator("dialog.image")).to_have_count(0)


def test_what_is_no_image_is_said_and_the_rest_goes_on(browser: Browser, folder: Path) -> None:
    browser.expected_statuses.add(400)
    page = composer(browser, seeing_model())
    page.fill("#text", "What is this?")
    page.set_input_files("[data-attach]", [folder / "fake.png"])
    expect(page.locator("#composer-notice")).to_contain_text("no PNG, JPEG or WebP image")
    expect(page.locator("#composer-notice")).to_contain_text("fake.png")
    expect(page.locator("[data-send]")).to_be_enabled()
    page.set_input_files("[data-attach]", [folder / "notes.txt"])
    expect(page.locator("#composer-notice")).to_contain_text("no PNG, JPEG or WebP image")
    thumbs(page, 0)


def test_a_model_that_takes_no_images_says_so_in_the_composer(browser: Browser, folder: Path) -> None:
    name = ids.new("see")
    sees, blind = seeing_model(name=name), simulated_model("sim-words-7")
    page = composer(browser, sees)
    page.fill("#text", "What is this?")
    page.set_input_files("[data-attach]", [folder / "kawah.png"])
    thumbs(page, 1)
    for model, takes in ((blind, False), (name, True)):
        page.click(".composer__model")
        expect(page.locator("#filter")).to_be_focused()
        page.keyboard.type(model)
        page.keyboard.press("Enter")
        expect(page.locator("[data-chosen]")).to_have_text(model)
        expect(page.locator("[data-send]")).to_be_enabled(enabled=takes)
        expect(page.locator("[data-attach]")).to_be_enabled(enabled=takes)
        expect(page.locator(".composer__blind")).to_be_visible(visible=takes is False)
    thumbs(page, 1)


def test_the_picker_marks_who_takes_images_on_the_line_of_the_name(browser: Browser) -> None:
    page = composer(browser, seeing_model())
    page.locator(".composer__model").click()
    mark = page.locator("label.model:has(:checked) .model__sees").bounding_box()
    price = page.locator("label.model:has(:checked) .model__price").bounding_box()
    assert mark is not None
    assert price is not None
    assert price["y"] <= mark["y"] + mark["height"] / 2 <= price["y"] + price["height"]


def test_images_go_with_the_form_without_a_script(browser: Browser, folder: Path, simulator: object) -> None:
    model = seeing_model()
    page = composer(browser, model, java_script_enabled=False)
    page.fill("#text", "What is this?")
    page.set_input_files("input[name=images]", [folder / "kawah.png", folder / "foto.jpg"])
    page.click(".composer__send")
    expect(page.locator(".message__images img")).to_have_count(2)
    page.locator(".message__images a").first.click()
    expect(page.locator("dialog.image img")).to_be_visible()
    message = Message.objects.filter(role="user").latest("id")
    assert len(attachments.of([message])[message.pk]) == 2


def test_an_image_goes_out_without_words(browser: Browser, folder: Path, simulator: object) -> None:
    page = composer(browser, seeing_model())
    expect(page.locator("[data-send]")).to_be_disabled()
    page.set_input_files("[data-attach]", [folder / "kawah.png"])
    thumbs(page, 1)
    expect(page.locator("#composer-estimate")).to_contain_text("at most")
    page.locator(".thumb__verb").click()
    expect(page.locator("[data-send]")).to_be_disabled()

    page.set_input_files("[data-attach]", [folder / "kawah.png"])
    thumbs(page, 1)
    page.click("[data-send]")
    expect(page.locator(".message__images img")).to_have_count(1)
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    expect(page.locator(".message--user .message__body")).to_have_count(0)
    expect(page.locator(".topbar__title")).to_contain_text("kawah.png")


@pytest.mark.parametrize("on_its_own_page", [False, True])
def test_an_edited_message_takes_more_images(
    browser: Browser, folder: Path, simulator: object, on_its_own_page: bool
) -> None:
    browser.expected_statuses.add(400)
    page = composer(browser, seeing_model())
    page.fill("#text", "What is this?")
    page.set_input_files("[data-attach]", [folder / "kawah.png"])
    thumbs(page, 1)
    page.click("[data-send]")
    expect(page.locator("article[data-state=complete]")).to_be_visible()
    edit = page.locator(".message--user a[href$='/edits']")
    if on_its_own_page:
        page.goto(str(edit.get_attribute("href")))
    else:
        edit.click()
    dialog = page.locator("dialog.edit")
    expect(dialog.locator(".thumb")).to_have_count(1)
    shown = dialog.locator(".edit__estimate").inner_text()

    dialog.locator("input[type=file]").set_input_files([folder / "foto.jpg"])
    expect(dialog.locator(".thumb")).to_have_count(2)
    expect(dialog.locator(".edit__estimate")).not_to_have_text(shown)
    dialog.locator("input[type=file]").set_input_files([folder / "fake.png"])
    expect(dialog.locator(".edit__notice")).to_contain_text("fake.png")
    dialog.locator(".thumb__verb").first.click()
    dialog.get_by_role("button", name="Send", exact=True).click()

    expect(page.locator(".message__branches").first).to_contain_text("2 / 2")
    expect(page.locator(".message__images img")).to_have_count(1)
    edited = Message.objects.filter(role="user").latest("id")
    assert [image.name for image in attachments.of([edited])[edited.pk]] == ["foto.jpg"]
