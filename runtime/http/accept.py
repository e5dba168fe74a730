"""Which of several media types a request prefers (RFC 9110, 12.5.1)."""

from collections.abc import Collection, Mapping

from aiohttp import web


def preferred_media_type(request: web.Request, names: Mapping[str, Collection[str]]) -> str:
    """Return the media type that `Accept` prefers, else the first.

    `names`: the types in the order in which they are offered, each with the names by which clients ask for it.
    """
    weights: dict[str, float] = {}
    for item in ",".join(request.headers.getall("Accept", ())).split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        weights.setdefault(media_type, _weight(parameters))
    best, best_rank = next(iter(names)), (0.0, 3, 0)  # weight 0: not acceptable
    for media_type in names:
        rank = _rank(media_type, names[media_type], weights)
        if rank > best_rank:
            best, best_rank = media_type, rank
    return best


def _rank(media_type: str, names: Collection[str], weights: dict[str, float]) -> tuple[float, int, int]:
    """Rank a type by the weight of the most specific media range that matches it, its specificity and its position."""
    order = list(weights)
    for specificity, ranges in ((2, names), (1, {media_type.partition("/")[0] + "/*"}), (0, {"*/*"})):
        found = [name for name in order if name in ranges]
        if found:
            return max((weights[name], specificity, -order.index(name)) for name in found)
    return 0.0, 0, 0


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
