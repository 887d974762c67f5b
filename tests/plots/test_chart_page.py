import pytest
import vl_convert

from convolab.plots import chart_page


def test_the_libraries_are_bundled_once_and_then_read_from_the_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = iter(["library = '</script>';"])
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: next(bundles))
    texts = [chart_page.vega_libraries() for _ in range(2)]
    assert texts == ["library = '<\\/script>';"] * 2


def test_without_a_place_for_the_cache_the_libraries_are_bundled_each_time(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "file"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: "library")
    assert chart_page.vega_libraries() == "library"


def test_what_a_chart_says_cannot_end_the_script_or_the_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart_page, "vega_libraries", lambda: "library")
    spec = {"title": {"text": ["</title><b>", "two"]}, "data": {"values": [{"name": "</script><script>alert(1)"}]}}
    page = chart_page.chart_page(spec)
    assert page.count("</script>") == 2
    assert "<title>&lt;/title&gt;&lt;b&gt;</title>" in page
