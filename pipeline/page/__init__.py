"""The live page: a web page of a run or a broker, served on this machine (docs/page.md).

``sources`` read messages, ``content`` reduces them to arrays of a fixed size (``aggregates``), ``server`` sends these
to browsers as one snapshot and then changes, and ``static`` holds what a browser loads.
"""
