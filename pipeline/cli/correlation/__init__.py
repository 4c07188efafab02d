"""Commands over rules: checked, explained, published, scored."""
