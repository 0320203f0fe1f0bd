"""The todo page, as its users meet it: in a real browser, on the real service."""

import re
import time

import jwt
from playwright.sync_api import expect

from scripts.stack.server import wait_until
from tests.browser.conftest import assert_accessible, each_look


def row(page, title):
    return page.get_by_role("listitem").filter(has=page.get_by_text(title, exact=True))


def saved(page, title):
    """Wait until a row is there and nothing about it is on its way."""
    found = row(page, title)
    expect(found).to_be_visible()
    expect(found.locator(".state")).to_have_text("")
    return found


def created(client, title, **fields):
    todo_id = client.create(title=title, **fields)
    wait_until(lambda: client.todo(todo_id), 15, f"{title} applied")
    return todo_id


def token_for(deployment, user="ann", lives_s=3600):
    claims = {"sub": user, "exp": int(time.time()) + lives_s}
    return jwt.encode(claims, deployment.env["JWT_SECRET"], algorithm="HS256")


def test_a_visitor_reads_and_whoever_signs_in_adds_edits_ticks_and_deletes(
    open_page, client, no_todos, deployment
):
    created(client, "Water the plants")
    page = open_page("/")
    expect(row(page, "Water the plants")).to_be_visible()
    expect(page.get_by_role("checkbox")).to_be_disabled()
    expect(page.get_by_role("button", name="Edit: Water the plants")).to_be_hidden()

    page.get_by_label("Token").fill(f"Bearer {client.token}x")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").filter(has_text="does not accept this token")).to_be_visible()
    page.get_by_label("Token").fill(client.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("New todo", exact=True).locator("input")).to_be_focused()

    page.keyboard.type("Buy <b>milk</b>")
    page.keyboard.press("Enter")
    saved(page, "Buy <b>milk</b>")
    expect(page.get_by_role("status")).to_have_text("Added: Buy <b>milk</b>")

    page.get_by_role("button", name="Edit: Buy <b>milk</b>").click()
    page.get_by_role("textbox", name="Title").fill("Buy oat milk")
    page.get_by_role("textbox", name="Description").last.fill("two litres\nor three")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Edit: Buy oat milk")).to_be_focused()
    saved(page, "Buy oat milk")

    page.get_by_role("checkbox", name="Buy oat milk").check()
    saved(page, "Buy oat milk")
    todos = {todo["title"]: todo for todo in client.get("/todos").json()}
    assert todos["Buy oat milk"]["description"] == "two litres\nor three"
    assert todos["Buy oat milk"]["completed"] is True

    page.get_by_role("button", name="Delete: Buy oat milk").click()
    page.get_by_role("group", name="Delete: Buy oat milk").get_by_role("button", name="Delete").click()
    expect(row(page, "Buy oat milk")).to_have_count(0)
    wait_until(
        lambda: [todo["title"] for todo in client.get("/todos").json()] == ["Water the plants"], 15, "gone"
    )

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


def test_the_keyboard_alone_is_enough(open_page, client, no_todos):
    created(client, "second")
    created(client, "first")
    page = open_page("/", token=client.token)
    page.get_by_role("checkbox", name="first").focus()

    page.keyboard.press("Space")
    saved(page, "first")
    expect(page.get_by_role("checkbox", name="first")).to_be_checked()
    expect(page.get_by_role("checkbox", name="first")).to_be_focused()

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Edit: first")).to_be_focused()

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    # The row with the focus goes; the focus goes on to the next.
    expect(row(page, "first")).to_have_count(0)
    expect(page.get_by_role("checkbox", name="second")).to_be_focused()


def test_a_title_that_the_api_would_refuse_is_not_sent(open_page, client, no_todos):
    page = open_page("/", token=client.token)
    field = page.get_by_role("textbox", name="New todo")
    for title, complaint in {" ": "needs a title", "x" * 201: "at most 200 characters"}.items():
        field.fill(title)
        field.press("Enter")
        expect(page.get_by_role("alert").filter(has_text=complaint)).to_be_visible()
        expect(field).to_be_focused()
    field.fill("🧀" * 200)
    field.press("Enter")
    saved(page, "🧀" * 200)


def test_a_write_is_pending_until_it_is_applied_and_a_rejection_says_why(
    open_page, client, no_todos, deployment, shoot
):
    gone = created(client, "Soon gone")
    page = open_page("/", token=client.token)
    expect(row(page, "Soon gone")).to_be_visible()
    deployment.worker.kill()
    try:
        assert client.request("DELETE", f"/todos/{gone}").status == 202
        page.get_by_role("checkbox", name="Soon gone").check()
        page.get_by_role("textbox", name="New todo").fill("On its way")
        page.get_by_role("textbox", name="New todo").press("Enter")
        for title in ("Soon gone", "On its way"):
            expect(row(page, title).locator(".state")).to_have_text("Saving")
        # The list was asked for again and again in the meantime: it does not know better.
        asked = len(open_page.watched(page).responses)
        wait_until(
            lambda: page.wait_for_timeout(50) or len(open_page.watched(page).responses) > asked + 3,
            15,
            "polled",
        )
        expect(row(page, "On its way").locator(".state")).to_have_text("Saving")
        shoot(page, "todos-pending")
    finally:
        deployment.worker.start()
    saved(page, "On its way")
    failed = row(page, "Soon gone")
    expect(failed).to_contain_text("Not changed. There was no such todo.")
    shoot(page, "todos-rejected")
    failed.get_by_role("button", name="Dismiss").click()
    expect(failed).to_have_count(0)


def test_while_the_log_is_away_a_write_waits_and_is_sent_again(open_page, client, no_todos, servers, shoot):
    created(client, "Patience")
    page = open_page("/", token=client.token)
    expect(row(page, "Patience")).to_be_visible()
    valkey = servers.process("valkey")
    valkey.freeze()
    try:
        page.get_by_role("checkbox", name="Patience").check()
        expect(row(page, "Patience").locator(".state")).to_have_text("Waiting to send")
        shoot(page, "todos-waiting")
    finally:
        valkey.resume()
    saved(page, "Patience")
    wait_until(lambda: client.get("/todos").json()[0]["completed"], 15, "applied")


def test_what_others_change_shows_up_by_itself_for_the_price_of_a_304(open_page, client, no_todos):
    todo_id = created(client, "Mine")
    page = open_page("/")
    expect(row(page, "Mine")).to_be_visible()
    page.wait_for_event("response", lambda response: "/todos?" in response.url and response.status == 304)

    bob = client.as_user("bob")
    created(bob, "From Bob")
    assert client.request("DELETE", f"/todos/{todo_id}").status == 202
    expect(row(page, "From Bob")).to_contain_text("bob")
    expect(row(page, "Mine")).to_have_count(0)


def test_a_hidden_page_does_not_ask(open_page, client, no_todos):
    page = open_page("/")
    expect(page.get_by_text("Nothing to do")).to_be_visible()
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        True,
    )
    expect(page.locator("#liveness")).to_have_text("Paused")
    asked = len(open_page.watched(page).responses)
    page.wait_for_timeout(2500)
    assert len(open_page.watched(page).responses) == asked
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#liveness")).to_have_text("Live")


def test_without_the_network_the_page_says_so_and_comes_back(open_page, client, no_todos, shoot):
    created(client, "Still here")
    page = open_page("/")
    expect(row(page, "Still here")).to_be_visible()
    page.context.set_offline(True)
    expect(page.get_by_text(re.compile(r"cannot be reached. Trying again"))).to_be_visible()
    expect(row(page, "Still here")).to_be_visible()
    shoot(page, "todos-offline")
    page.context.set_offline(False)
    expect(page.locator("#liveness")).to_have_text("Live")
    expect(page.get_by_text("cannot be reached")).to_be_hidden()


def test_a_token_that_expires_ends_the_session_and_what_was_not_sent_can_be_sent_again(
    open_page, client, no_todos, deployment
):
    page = open_page("/")
    page.clock.install()
    page.get_by_label("Token").fill(token_for(deployment, lives_s=600))
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#user")).to_have_text("ann")
    page.clock.fast_forward("10:00")
    expect(page.get_by_role("alert").filter(has_text="no longer accepted")).to_be_visible()
    expect(page.get_by_label("Token")).to_be_focused()
    expect(page.get_by_role("textbox", name="New todo")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0

    # The API stops accepting a token before the page knows: the secret was changed, say.
    stranger = jwt.encode(
        {"sub": "ann", "exp": int(time.time()) + 60}, "another secret" * 4, algorithm="HS256"
    )
    page = open_page("/", token=stranger)
    page.get_by_role("textbox", name="New todo").fill("Typed in vain?")
    page.get_by_role("textbox", name="New todo").press("Enter")
    expect(row(page, "Typed in vain?")).to_contain_text("Not sent. The token is not valid.")
    page.get_by_label("Token").fill(client.token)
    page.get_by_role("button", name="Sign in").click()
    row(page, "Typed in vain?").get_by_role("button", name="Try again").click()
    saved(page, "Typed in vain?")


def test_more_than_a_page_is_shown_on_request(open_page, client, no_todos, shoot):
    for number in range(55):
        client.create(title=f"Todo {number}")
    wait_until(lambda: len(client.get("/todos").json()) == 55, 20, "applied")
    page = open_page("/")
    expect(page.get_by_role("listitem")).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("listitem")).to_have_count(55)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    # The further pages stay as current as the first.
    assert client.request("DELETE", f"/todos/{client.get('/todos').json()[-1]['id']}").status == 202
    expect(page.get_by_role("listitem")).to_have_count(54)


def test_nothing_in_a_todo_becomes_markup_and_no_script_but_ours_runs(open_page, client, no_todos):
    evil = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
    created(client, evil, description=evil)
    page = open_page("/", token=client.token)
    expect(row(page, evil).first).to_be_visible()
    refused = page.evaluate(
        """() => new Promise(resolve => {
            const names = new Set();
            document.addEventListener("securitypolicyviolation", ({effectiveDirective}) => {
                names.add(effectiveDirective);
                if (names.size === 3) resolve([...names].sort());
            });
            try { document.body.innerHTML += "<b>"; } catch {}
            const script = document.createElement("script");
            try { script.textContent = "window.hit = 1"; } catch {}
            const style = document.createElement("style");
            style.textContent = "body {display: none}";
            document.body.append(style);
            fetch("https://elsewhere.example/").catch(() => {});
        })"""
    )
    assert refused == ["connect-src", "require-trusted-types-for", "style-src-elem"]
    assert page.evaluate("window.hit") is None
    open_page.watched(page).errors.clear()


def test_it_is_accessible_and_fits_in_every_look(open_page, client, no_todos, shoot):
    done = created(client, "Book the train to Lisbon")
    client.request("PATCH", f"/todos/{done}", {"completed": True})
    client.as_user("bob").create(
        title="Prepare the quarterly review", description="Numbers from Ann, slides from me"
    )
    client.create(title="Call " + "Donaudampfschifffahrtsgesellschaft" * 3)
    created(client, "Buy milk & Käse", description="Two litres.\nThe good cheese, from the market.")
    page = open_page("/")
    expect(page.get_by_role("checkbox", name="Book the train")).to_be_checked()
    for name in each_look(page):
        shoot(page, f"todos-visitor-{name}")
    assert_accessible(page)

    page = open_page("/", token=client.token)
    expect(page.get_by_role("button", name="Edit: Buy milk")).to_be_visible()
    shoot(page, "todos-desktop-light")
    page.locator("summary").click()
    page.get_by_role("button", name="Edit: Buy milk").click()
    page.get_by_role("button", name="Delete: Call").click()
    for name in each_look(page):
        shoot(page, f"todos-editing-{name}")
        if name.startswith("desktop"):
            assert_accessible(page)
