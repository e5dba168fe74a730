"""The headings of docs/tokens.md whose code is run by a test."""

PAGE = "tokens.md"
PYTHON = {"pyjwt": "Python: PyJWT", "joserfc": "Python: joserfc"}
JAVASCRIPT = "JavaScript: jose"
