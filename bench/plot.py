"""SVG plots of rectangles, lines and text only, which render the same in every Markdown viewer."""

from html import escape

WIDTH, LEFT, BAR, GAP = 860, 330, 20, 8
FIRST_LINE = 24.0
COLOURS = ("#2a6f97", "#f28e2b", "#76b7b2", "#8c6bb1", "#e15759", "#59a14f")
PARTS = ("gateway", "server", "client", "persister", "consumer", "RabbitMQ", "mongod")
COLOUR = dict(zip(PARTS, ("#2a6f97", "#2a6f97", "#2a6f97", "#76b7b2", "#76b7b2", "#f28e2b", "#8c6bb1"), strict=True))
LABEL = {"gateway": "gateway, server or client", "persister": "persister or consumer"}


def _svg(height: int, body: list[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    )
    return head + "".join(body) + "</svg>\n"


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def bars(table: dict[str, dict[str, float]]) -> str:
    """Return stacked bars, one per row of `table`: µs per process; each group of rows has its own scale."""
    groups: dict[str, list[tuple[str, dict[str, float]]]] = {}
    for name, row in table.items():
        group, _, what = name.partition(": ")
        groups.setdefault(group, []).append((what, row))
    body: list[str] = []
    y = FIRST_LINE
    for index, part in enumerate(("gateway", "RabbitMQ", "persister", "mongod")):
        x = 20.0 + index * 200
        body += [f'<rect x="{x}" y="{y - 11}" width="12" height="12" fill="{COLOUR[part]}"/>']
        body += [_text(x + 18, y, LABEL.get(part, part))]
    for group, rows in groups.items():
        y += 36
        body.append(_text(20, y, f"{group}: µs of processor time a reading", colour="#000"))
        y += 10
        most = max(row["total"] for _, row in rows)
        for what, row in rows:
            x = float(LEFT)
            body.append(_text(LEFT - 10, y + 15, what, "end"))
            for part in ("gateway", "server", "client", "RabbitMQ", "persister", "consumer", "mongod"):
                if part in row:
                    width = max(0.0, row[part]) / most * (WIDTH - LEFT - 80)
                    colour = COLOUR[part]
                    body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
                    x += width
            body.append(_text(x + 6, y + 15, f"{row['total']:.1f}"))
            y += BAR + GAP
    return _svg(round(y + 16), body, "Processor time a reading, by process")


def lines(title: str, unit: str, points: dict[str, list[tuple[str, float]]]) -> str:
    """Return one panel per name in `points`: values over their labels, from zero."""
    body, panel = [_text(20, 24, f"{title} ({unit})", colour="#000")], 170
    for index, (name, values) in enumerate(points.items()):
        top, left, right = 44 + index * panel, 120, WIDTH - 40
        most = max(value for _, value in values) or 1.0
        step = (right - left) / max(1, len(values) - 1)
        body.append(_text(20, top + 12, name))
        body.append(f'<line x1="{left}" y1="{top + 120}" x2="{right}" y2="{top + 120}" stroke="#999"/>')
        at = [(left + number * step, top + 120 - value / most * 90) for number, (_, value) in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        body.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[index % 6]}" stroke-width="2"/>')
        for (x, y), (label, value) in zip(at, values, strict=True):
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[index % 6]}"/>')
            body.append(_text(x, y - 8, f"{value:,.1f}" if value < 100 else f"{value:,.0f}", "middle"))
            body.append(_text(x, top + 137, label, "middle", "#555"))
    return _svg(60 + len(points) * panel, body, title)


def curves(title: str, unit: str, panels: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Return one panel per name in `panels`, each with a curve per name in it: (x, y), y from zero; `unit` is of x."""
    body, panel, left, right = [_text(20, FIRST_LINE, title, colour="#000")], 190, 90, WIDTH - 150
    xs = [x for named in panels.values() for points in named.values() for x, _ in points]
    first, span = min(xs, default=0.0), (max(xs, default=1.0) - min(xs, default=0.0)) or 1.0
    for index, (name, named) in enumerate(panels.items()):
        top = 40 + index * panel
        most = max((y for points in named.values() for _, y in points), default=0.0) or 1.0
        body.append(_text(20, top + 14, name))
        for part in (0.0, 0.5, 1.0):
            y = top + 144 - part * 115
            body.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
            body.append(_text(left - 8, y + 4, f"{most * part:,.4g}", "end", "#555"))
        for number, (curve, points) in enumerate(named.items()):
            colour = COLOURS[number % len(COLOURS)]
            path = " ".join(
                f"{left + (x - first) / span * (right - left):.1f},{top + 144 - y / most * 115:.1f}" for x, y in points
            )
            body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            body.append(_text(right + 12, top + 34 + 17 * number, curve, colour=colour))
        body.append(_text(left, top + 162, f"{first:.3g}", "middle", "#555"))
        body.append(_text(right, top + 162, f"{first + span:.3g} {unit}", "middle", "#555"))
    return _svg(60 + len(panels) * panel, body, title)


def groups(title: str, panels: dict[str, list[tuple[str, float]]]) -> str:
    """Return one group of bars per name in `panels`, each group with its own scale, from zero."""
    body, y = [_text(20, FIRST_LINE, title, colour="#000")], FIRST_LINE
    for name, values in panels.items():
        y += 36
        body.append(_text(20, y, name, colour="#000"))
        y += 10
        most = max((value for _, value in values), default=1.0) or 1.0
        for index, (what, value) in enumerate(values):
            width = max(0.0, value) / most * (WIDTH - LEFT - 80)
            body.append(_text(LEFT - 10, y + 15, what, "end"))
            body.append(
                f'<rect x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" fill="{COLOURS[index % 6]}"/>'
            )
            body.append(_text(LEFT + width + 6, y + 15, f"{value:,.0f}" if value >= 100 else f"{value:.3g}"))
            y += BAR + GAP
    return _svg(round(y + 16), body, title)
