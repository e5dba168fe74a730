"""The public HTTP interface, described once for every service that is part of it."""

from runtime.http.docs import ApiInfo

PUBLIC_API = ApiInfo(
    title="Tidegate",
    version="1",
    about=(
        "Accounts, devices, tokens and readings. JSON is camelCase; times go out as RFC 3339 in UTC with milliseconds. "
        "Every refusal is an RFC 9457 problem: a program reads `code`, and `errors` for the wrong fields of a body."
    ),
)
