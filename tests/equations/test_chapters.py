"""The chapters of `examples/derivations` run: every number in them is what their code prints."""
import pytest

from chapters import CHAPTERS, failures, fused_where_real
from npvae.kernels import reference


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs(chapter):
    assert not failures(CHAPTERS[chapter])


@pytest.mark.every(12)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_on_the_compiled_kernels(chapter, monkeypatch):
    for name in reference.__all__:
        monkeypatch.setattr(reference, name, fused_where_real(name))
    assert not failures(CHAPTERS[chapter])


def test_a_wrong_line_in_a_chapter_is_found(tmp_path):
    wrong = tmp_path / "05.md"
    wrong.write_text(CHAPTERS["05"].read_text(encoding="utf-8").replace("[0.486565 0.93277", "[0.486565 0.93278"))
    assert "Expected:" in failures(wrong) and "0.93278" in failures(wrong)
