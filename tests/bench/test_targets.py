"""Every target has a verdict, for the compiled build and without it."""

from bench.measurements import Measurement, Measurements, Workload
from bench.report import Figure
from bench.sparse import event_figures
from bench.systems import BEFORE, NODE_CHECKED, NODE_RABBITMQ, PURE, TIDEGATE
from bench.targets import WORKLOADS, figures_of

# In hundredths of the commit's: compiled modules make up for the targets, without them Tidegate falls short.
COMPILED, NOT_COMPILED, COMMIT = 50.0, 90.0, 100.0


def of(each: float) -> Measurements:
    """Return one turn in which gateway and persister took that many µs."""
    return Measurements([Measurement({"gateway": each, "persister": each}, 1.0, 300_000)])


def verdicts(figures: list[Figure]) -> dict[tuple[str, float | None], str]:
    return {(figure.what.strip(), figure.limit or figure.at_least): figure.verdict for figure in figures}


def test_a_reading_has_verdicts_beside_the_commit_and_node_for_both_builds() -> None:
    builds = {TIDEGATE: COMPILED, PURE: NOT_COMPILED, BEFORE: COMMIT, NODE_RABBITMQ: 6 * COMPILED}
    figures = figures_of({(workload, name): of(each) for workload in WORKLOADS for name, each in builds.items()}, {})
    one, _, hundred = (
        verdicts(figures[start:end]) for start, end in zip(starts(figures), [*starts(figures)[1:], None], strict=True)
    )
    assert one["Tidegate, of that", 0.7] == "holds"
    assert one["Tidegate, not compiled, of that", 0.7] == "FALLS SHORT"
    assert one["its gateway, of that", 0.6] == "FALLS SHORT"  # the last one is that of the build without
    assert one["times as dear as Tidegate", 6] == "holds"
    assert one[f"{NODE_RABBITMQ}: times as dear as {PURE}", 6] == "FALLS SHORT"
    assert hundred["Tidegate, of that", 0.85] == "holds"
    assert hundred["Tidegate, not compiled, of that", 0.85] == "FALLS SHORT"
    assert hundred["its persister, of that", 0.6] == "FALLS SHORT"


def starts(figures: list[Figure]) -> list[int]:
    """Return where each workload begins."""
    return [at for at, figure in enumerate(figures) if not figure.what.startswith(" ")]


def test_without_compiled_modules_a_reading_has_no_line_of_another_build() -> None:
    found: dict[tuple[Workload, str], Measurements] = {
        (workload, name): of(COMMIT) for workload in WORKLOADS for name in (TIDEGATE, BEFORE, NODE_RABBITMQ)
    }
    assert [figure.what for figure in figures_of(found, {}) if PURE in figure.what] == []


def test_sparse_events_have_verdicts_beside_the_commit_and_node_for_both_builds() -> None:
    found = {TIDEGATE: of(COMPILED), PURE: of(NOT_COMPILED), BEFORE: of(COMMIT), NODE_CHECKED: of(4 * COMPILED)}
    asked = verdicts(event_figures("5,000 connections", found))
    assert asked["Tidegate, of that", 0.6] == "holds"
    assert asked["Tidegate, not compiled, of that", 0.6] == "FALLS SHORT"
    assert asked["times as dear as Tidegate", 4] == "holds"
    assert asked["times as dear as Tidegate, not compiled", 4] == "FALLS SHORT"
