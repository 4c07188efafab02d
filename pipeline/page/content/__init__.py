"""What the page shows: the state of each view, advanced by messages, and its form for the browser."""
