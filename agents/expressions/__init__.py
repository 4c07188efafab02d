"""The expression language of rules, windows and validators: parser and evaluators."""
