"""Pictures in which all text can be read."""

import pytest
from inspection_cores import ids, make_core
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fairseq_lambda.inspection import pictures, reader
from fairseq_lambda.inspection.page import write_page


@pytest.mark.parametrize("length", [3, 40])
def test_no_label_or_title_is_cut_off(tmp_path, monkeypatch, length):
    cut, write = [], pictures.save

    def save(figure, path):
        names = write(figure, path)
        figure.set_dpi(pictures.DPI)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw_without_rendering()  # labels are placed when they are drawn, in pixels
        texts = [text for axis in figure.axes for text in (axis.xaxis.label, axis.yaxis.label, axis.title)]
        for text in (*texts, *figure.texts):
            box = text.get_window_extent(renderer)
            inside = (figure.bbox.containsx(x) and figure.bbox.containsy(y) for x, y in (box.min, box.max))
            if text.get_text() and not all(inside):
                cut.append((path.name, text.get_text()))
        return names

    monkeypatch.setattr(pictures, "save", save)
    write_page(reader(make_core(max_positions=128)), ids(length), tmp_path, "x")
    assert cut == []
