"""Plots and tables contain the measurements with units, and are well-formed."""

from xml.etree import ElementTree

from bench.plot import bars, curves, lines
from bench.report import Figure, markdown, table_markdown

SVG = "{http://www.w3.org/2000/svg}"
TABLE = {
    "1 an event: Tidegate": {"gateway": 12.0, "persister": 9.0, "RabbitMQ": 8.0, "mongod": 11.0, "total": 40.0},
    "1 an event: Node.js + MongoDB": {"server": 250.0, "mongod": 300.0, "total": 550.0},
    "100 an event: bare <insert>": {"client": 0.7, "mongod": 4.1, "total": 4.8},
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314


def test_bars_name_every_system_and_its_total_with_the_unit() -> None:
    found = texts(bars(TABLE))
    assert {"Tidegate", "Node.js + MongoDB", "bare <insert>", "40.0", "550.0", "4.8"} <= set(found)
    assert any("µs of processor time a reading" in text for text in found)


def test_bars_of_one_group_share_a_scale() -> None:
    rectangles = ElementTree.fromstring(bars(TABLE)).iter(f"{SVG}rect")  # noqa: S314
    widths = [float(rectangle.get("width", 0)) for rectangle in rectangles if rectangle.get("height") == "20"]
    ours, theirs = sum(widths[:4]), sum(widths[4:6])
    assert abs(theirs / ours - 550 / 40) < 0.1


def test_lines_label_every_point() -> None:
    found = texts(lines("Growth", "µs a reading", {"connections": [("10", 38.0), ("5,000", 61.5)]}))
    assert {"Growth (µs a reading)", "connections", "10", "5,000", "38.0", "61.5"} <= set(found)


def test_a_line_through_one_point_can_be_drawn() -> None:
    assert "38.0" in texts(lines("Growth", "µs", {"connections": [("10", 38.0)]}))


def test_a_table_leaves_cells_empty_that_a_row_does_not_have() -> None:
    text = table_markdown(TABLE)
    head, _, first, second, _ = text.splitlines()
    assert head.count("|") == first.count("|") == second.count("|")
    assert "| 40.00 |" in first
    assert table_markdown({}) == ""


def test_a_table_of_figures_has_their_limits_and_verdicts() -> None:
    text = markdown([Figure("part", 0, ""), Figure("a", 1234.5, "x", at_least=2000), Figure("  b", 1.5, "ms", 5)])
    assert "| **part** |" in text
    assert "| a | 1,234 x | >= 2,000 | FALLS SHORT |" in text
    assert "b | 1.50 ms | <= 5 | holds |" in text


def test_curves_name_every_panel_and_curve_and_share_the_axis_of_hours() -> None:
    points: dict[str, dict[str, list[tuple[float, float]]]] = {
        "memory, MB": {"gateway": [(0.0, 50.0), (2.0, 100.0)], "auth": [(1.0, 100.0)]},
        "nothing": {"empty": []},
    }
    svg = curves("A soak", "h", points)
    assert {"A soak", "memory, MB", "gateway", "auth", "nothing", "2 h", "100"} <= set(texts(svg))
    paths = [one.get("points") or "" for one in ElementTree.fromstring(svg).iter(f"{SVG}polyline")]  # noqa: S314
    ends = [[float(x) for x in point.split(",")] for point in paths[0].split()]
    (x_first, y_first), (x_last, y_last) = ends
    x_middle, y_high = (float(x) for x in paths[1].split(","))
    assert x_middle == (x_first + x_last) / 2
    assert y_last == y_high < y_first
