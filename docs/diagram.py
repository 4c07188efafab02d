"""Writes the entity diagram of the models into docs/data.md: ``python docs/diagram.py``."""  # noqa: INP001  a script

from pathlib import Path

from astrocyte.schemas.tables.diagram import entity_diagram

PAGE = Path(__file__).parent / "data.md"
BEGIN, END = "```mermaid\n", "```\n"


def with_diagram(text: str) -> str:
    """The page with the diagram of today's models in the place of the one that it has."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + entity_diagram() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text()))
