"""What a visitor sees, on a phone and on a desk."""

from __future__ import annotations

import csv
import re
import shutil
import socket
from itertools import pairwise
from pathlib import Path

import pytest
from deepfake_client import DecisionPolicy, DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from playwright.sync_api import Page, expect

from tests.support.browsers import Browsers, upload_one, upload_several
from tests.support.exports import exported_files
from tests.support.page_process import PageProcess, page_process

pytestmark = pytest.mark.slow
WIDTHS = pytest.mark.parametrize("width", [390, 1440])


@WIDTHS
def test_one_image_gets_its_verdict(
    page: PageProcess, browsers: Browsers, triton: EmbeddedTriton, uploads: Path, width: int
) -> None:
    with DeepfakeClient(triton.grpc_url) as client:
        expected = client.classify(uploads / "turned.jpg")
        provenance = client.provenance()
    assert provenance is not None
    with browsers.visit(page.url, width=width) as visited:
        upload_one(visited, uploads / "turned.jpg")
        card = visited.locator("#df-verdict .df-card")
        expect(card.locator(".df-word")).to_have_text(expected.label)
        expect(card.locator("dd").first).to_have_text(f"{expected.score:.1%}")
        expect(card).to_contain_text(f"ms · model version {expected.model_version}")
        expect(card.locator("img")).to_have_js_property("complete", True)
        expect(visited.locator("#df-status")).to_contain_text(provenance.model_pt_sha256[:12])
        expect(visited.locator("#df-note")).to_contain_text("hint, not evidence")
        expect(visited.locator("#df-note")).to_contain_text("A record is kept of each verdict")
        # The input is ready for the next one, and nothing sticks out of the screen.
        expect(visited.locator("#df-image img")).to_have_count(0)
        assert rightmost(visited, "#df-verdict") <= width
        box = card.bounding_box()
        assert box is not None
        assert box["width"] > 300  # also where the columns have to go below each other


@WIDTHS
def test_several_images_get_a_gallery_and_a_table_to_download(
    page: PageProcess, browsers: Browsers, triton: EmbeddedTriton, uploads: Path, tmp_path: Path, width: int
) -> None:
    files = sorted(uploads.iterdir())
    with browsers.visit(page.url, width=width) as visited:
        upload_several(visited, *files)
        verdicts = visited.locator("#df-verdicts")
        rows = verdicts.locator("tbody tr")
        expect(rows).to_have_count(len(files))
        expect(verdicts.locator(".df-summary")).to_contain_text("2 no verdict")
        expect(verdicts.locator("figure")).to_have_count(len(files))
        expect(verdicts.locator("figure img")).to_have_count(len(files) - 2)
        shown = [row.locator("th, td").all_inner_texts() for row in rows.all()]
        assert rightmost(visited, "#df-verdicts", "*:not(.df-scroll *)") <= width  # the table scrolls by itself
        with visited.expect_download() as download:
            verdicts.get_by_role("link", name="Download the table (CSV)").click()
        download.value.save_as(tmp_path / "verdicts.csv")
    with (tmp_path / "verdicts.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    with DeepfakeClient(triton.grpc_url) as client:
        expected = list(client.classify_many(files))
    for result, cells, row in zip(expected, shown, table, strict=True):
        assert cells[0] == row["file"] == Path(str(result.source)).name
        assert row["weights"] == "checkpoint"
        if not result.ok:
            assert cells[-1] == row["error"] == result.error.reason
            assert row["label"] == ""
            continue
        assert cells[1] == row["label"] == result.label
        # In other company in a batch the model's last digits are others.
        assert [float(row[label]) for label in result.scores] == pytest.approx(list(result.scores.values()), abs=1e-5)
        assert cells[2:4] == [f"{float(row[label]):.4f}" for label in result.scores]
        assert cells[4] == row["ms"]


def test_a_file_that_is_no_image_is_told_and_the_next_one_goes_through(
    page: PageProcess, browsers: Browsers, uploads: Path, tmp_path: Path
) -> None:
    with browsers.visit(page.url) as visited:
        card = visited.locator("#df-verdict .df-card")
        for name, reason in [("text.jpg", "Not an image (JPEG, PNG"), ("truncated.jpg", "the file ends before")]:
            upload_one(visited, uploads / name)
            expect(card.locator(".df-name")).to_have_text(name)
            expect(card).to_contain_text("No verdict")
            expect(card).to_contain_text(reason)
        (tmp_path / "notes.txt").write_text("This is no image.")
        upload_one(visited, tmp_path / "notes.txt")
        expect(visited.get_by_text("Invalid file type: notes.txt")).to_be_visible()
        with (tmp_path / "large.jpg").open("wb") as large:
            large.truncate(34_000_000)
        upload_one(visited, tmp_path / "large.jpg")
        expect(visited.get_by_text(re.compile("exceed.*large.jpg"))).to_be_visible()
        upload_one(visited, uploads / "photo.jpg")
        expect(card.locator(".df-name")).to_have_text("photo.jpg")
        expect(card).not_to_contain_text("No verdict")


def test_a_name_that_is_markup_is_shown_as_it_is(page: PageProcess, browsers: Browsers, uploads: Path) -> None:
    name = "=<img src=x onerror=document.title='taken'>${document.title='taken'}{{value}}.jpg"
    image = {"name": name, "mimeType": "image/jpeg", "buffer": (uploads / "photo.jpg").read_bytes()}
    with browsers.visit(page.url) as visited:
        upload_one(visited, image)
        expect(visited.locator("#df-verdict .df-name")).to_have_text(name)
        upload_several(visited, image)
        expect(visited.locator("#df-verdicts tbody th").first).to_have_text(name)
        expect(visited.locator("#df-verdicts figcaption").first).to_contain_text(name)
        with visited.expect_download() as download:
            visited.get_by_role("link", name="Download the table (CSV)").click()
        # A spreadsheet would take a cell that begins with = for a formula.
        assert f"\n'{name}," in download.value.path().read_text(encoding="utf-8-sig").replace('"', "")
        assert visited.title() == "Deepfake or real?"


def test_it_is_used_with_the_keyboard_and_heard(page: PageProcess, browsers: Browsers, uploads: Path) -> None:
    with browsers.visit(page.url) as visited:
        expect(visited.locator("#df-verdict")).to_have_attribute("aria-live", "polite")
        levels = [
            int(each[1]) for each in visited.locator("h1, h2, h3, h4").evaluate_all("all => all.map(e => e.tagName)")
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        visited.get_by_role("tab", name="One image").focus()
        with visited.expect_file_chooser() as chooser:
            for _ in range(5):
                visited.keyboard.press("Tab")
                if visited.evaluate("document.activeElement.closest('#df-image') !== null"):
                    break
            visited.keyboard.press("Enter")
        chooser.value.set_files(uploads / "photo.jpg")
        expect(visited.locator("#df-verdict .df-name")).to_have_text("photo.jpg")
        # Whoever speaks to the browser says what is written on the button.
        expect(visited.get_by_role("button", name="Drop an image here")).to_be_visible()


def test_an_image_is_pasted_with_the_keys(page: PageProcess, browsers: Browsers) -> None:
    with browsers.visit(page.url, permissions=["clipboard-read", "clipboard-write"]) as visited:
        visited.evaluate("""async () => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 64;
            canvas.getContext("2d").fillRect(0, 0, 30, 30);
            const image = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
            await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        }""")
        visited.keyboard.press("Control+v")
        expect(visited.locator("#df-verdict .df-card dd").first).to_be_visible()
        visited.get_by_role("tab", name="Several images").click()
        visited.keyboard.press("Control+v")
        expect(visited.locator("#df-verdicts tbody tr")).to_have_count(1)


def test_a_photo_is_taken_with_the_camera(page: PageProcess, browsers: Browsers) -> None:
    with browsers.visit(page.url, permissions=["camera"]) as visited:
        image = visited.locator("#df-image")
        image.get_by_label("Capture from camera").click()
        image.get_by_text("Click to Access Webcam").click()
        visited.wait_for_function("document.querySelector('#df-image video')?.videoWidth > 0")
        image.get_by_label("capture photo").click()
        expect(visited.locator("#df-verdict .df-card dd").first).to_be_visible()
        expect(visited.locator("#df-verdict .df-card img")).to_have_js_property("complete", True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_can_be_read(
    page: PageProcess, browsers: Browsers, uploads: Path, scheme: str
) -> None:
    with browsers.visit(page.url, color_scheme=scheme) as visited:
        upload_one(visited, uploads / "photo.jpg")
        expect(visited.locator("#df-verdict .df-word")).to_be_visible()
        background = colour(visited, "body", "backgroundColor")
        assert (luminance(background) > 0.5) == (scheme == "light")
        card = colour(visited, "#df-verdict .df-card", "backgroundColor")
        for text in (".df-word", ".df-name", ".df-small", "dt"):
            assert contrast(colour(visited, f"#df-verdict .df-card {text}", "color"), card) >= 4.5, text


def test_it_goes_on_when_the_server_comes_back_with_other_weights(
    repository: Path, browsers: Browsers, uploads: Path, tmp_path: Path
) -> None:
    """The server is stopped and started again while the page is open; the visitor reloads nothing."""
    stand_in = Path(shutil.copytree(repository, tmp_path / "model_repository"))
    provenance = exported_files(stand_in)[1]
    provenance.write_text(provenance.read_text().replace('"checkpoint"', '"stand-in"'))
    policy = tmp_path / "policy.json"
    DecisionPolicy(temperature=1.0, deepfake_threshold=1.0, real_threshold=0.0).save(policy)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ("--url", f"grpc://127.0.0.1:{port}", "--policy", str(policy))
    with page_process(tmp_path, *arguments) as page, browsers.visit(page.url, width=390) as visited:
        status = visited.locator("#df-status")
        card = visited.locator("#df-verdict .df-card")
        expect(status).to_contain_text("The server is away.")
        with EmbeddedTriton(repository, grpc_port=port):
            expect(status).to_contain_text("SHA-256")
            upload_one(visited, uploads / "photo.jpg")
            expect(card.locator(".df-word")).to_have_text("Unsure")
            expect(visited.get_by_text("Stand-in weights")).to_have_count(0)
        upload_one(visited, uploads / "turned.jpg")
        expect(card.locator(".df-name")).to_have_text("turned.jpg")
        expect(card).to_contain_text("No verdict")
        expect(status).to_contain_text("The server is away.")
        upload_several(visited, uploads / "photo.jpg", uploads / "turned.jpg", uploads / "cmyk.jpg")
        expect(visited.locator("#df-verdicts .df-summary")).to_have_text("3 images: 3 no verdict.")
        with EmbeddedTriton(stand_in, grpc_port=port):
            expect(status).to_contain_text("Stand-in weights: the verdicts mean nothing.")
            upload_several(visited, uploads / "photo.jpg", uploads / "text.jpg")
            verdicts = visited.locator("#df-verdicts")
            expect(verdicts.locator(".df-summary")).to_have_text("2 images: 1 unsure, 1 no verdict.")
            expect(verdicts.locator(".df-mark")).to_have_text("Stand-in weights: the verdicts mean nothing.")
            expect(verdicts.get_by_role("columnheader", name="Decision")).to_be_visible()
            with visited.expect_download() as download:
                verdicts.get_by_role("link", name="Download the table (CSV)").click()
            rows = list(csv.DictReader(download.value.path().read_text(encoding="utf-8-sig").splitlines()))
            assert [row["decision"] for row in rows] == ["unsure", ""]
            assert {row["weights"] for row in rows} == {"stand-in (verdicts mean nothing)"}
            visited.get_by_role("tab", name="One image").click()
            upload_one(visited, uploads / "photo.jpg")
            expect(card.locator(".df-mark")).to_have_text("Stand-in weights: the verdicts mean nothing.")
        assert "Traceback" not in page.log
        assert "the server is away" in page.log
        assert "the server answers again" in page.log


def rightmost(visited: Page, selector: str, within: str = "*") -> float:
    """How far to the right anything reaches of what an element holds, in pixels."""
    return float(
        visited.locator(selector).evaluate(
            "(element, within) => Math.max(...[...element.querySelectorAll(within)].map("
            "each => each.getBoundingClientRect().right))",
            within,
        )
    )


def colour(visited: Page, selector: str, name: str) -> list[float]:
    """Red, green and blue, 0 to 1."""
    text = visited.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
    return [float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def luminance(parts: list[float]) -> float:
    """Relative luminance (WCAG 2.1)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    """Contrast ratio (WCAG 2.1), 1 to 21."""
    bright, dim = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dim + 0.05)
