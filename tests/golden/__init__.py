"""Messages and documents of earlier versions, and the tests that this version still reads them.

A folder is named after the commit whose processes made it; see `record`. Files are never changed.
"""
