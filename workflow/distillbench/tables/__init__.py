"""One file a table: CSV, HTML, LaTeX, Markdown.

Called by jobs/ and report/; knows statistics/.
"""
