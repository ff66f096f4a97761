"""What `test_plotting` lends to other tests."""
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def images(n, dim):
    return np.random.default_rng(1).random((n, dim), dtype=np.float32)


def assert_nothing_cut_off(figure):
    """Every text and every axes lies inside the page; no axes is empty of things drawn."""
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, page = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page[0] and box.y1 <= page[1], (box, page)
    assert all(axes.has_data() or axes.images or axes.collections for axes in figure.axes)
