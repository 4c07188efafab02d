"""JSON records: read into frames and written from them."""
