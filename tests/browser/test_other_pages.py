"""The status page and the description of the API, in a real browser on the real service."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import SHOTS, assert_accessible, each_look


def test_the_status_page_shows_what_goes_on(open_page, client):
    page = open_page("/status")
    expect(page.locator("#liveness-text")).to_have_text("Ready")
    expect(page.locator("#generation .value")).to_have_text(re.compile(r"^[\d,]+$"))
    before = int(page.locator("#generation .value").inner_text().replace(",", ""))
    client.create(title="seen by the status page")
    expect(page.locator("#generation .value")).not_to_have_text(f"{before:,}")
    # Its own requests are requests.
    expect(page.locator("#requests .value")).to_have_text(re.compile(r"^[\d.,]+$"))
    expect(page.locator("#generation path")).to_have_attribute("d", re.compile(r"^M.*L"))
    expect(page.get_by_role("definition").first).to_have_text("up")


def test_the_status_page_is_accessible_and_fits_in_every_look(open_page):
    page = open_page("/status")
    expect(page.locator("#liveness-text")).to_have_text("Ready")
    for look in each_look(page):
        assert_accessible(page)
        page.screenshot(path=SHOTS / f"status-{look}.png", full_page=True)


def test_the_description_of_the_api_is_shown_with_its_operations_and_can_be_tried(open_page, client):
    page = open_page("/docs")
    operation = page.locator(".opblock", has_text="/todos").first
    expect(operation).to_be_visible()
    for path in ("/todos", "/todos/{todo_id}", "/todos/batch", "/operations/{operation_id}"):
        expect(page.locator(f'.opblock-summary-path[data-path="{path}"]').first).to_be_visible()
    for look in each_look(page):
        page.screenshot(path=SHOTS / f"docs-{look}.png")


def test_the_description_is_as_dark_as_the_browser_asks(open_page):
    page = open_page("/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_css("background-color", "rgb(28, 32, 34)")
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).not_to_have_css("background-color", "rgb(28, 32, 34)")


def test_the_pages_about_problems_are_accessible_and_fit_in_every_look(open_page):
    page = open_page("/problems")
    for look in each_look(page):
        assert_accessible(page)
        page.screenshot(path=SHOTS / f"problems-{look}.png", full_page=True)
    page.get_by_role("link", name="A request header is not valid").click()
    expect(page.get_by_role("heading", name="What to do")).to_be_visible()
    for look in each_look(page):
        assert_accessible(page)
        page.screenshot(path=SHOTS / f"problem-{look}.png", full_page=True)
