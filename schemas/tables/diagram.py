"""The entity diagram of the models, as Mermaid text for the docs."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Column, Table

from astrocyte.schemas.tables.base import Base

__all__ = ["entity_diagram"]


def entity_diagram(tables: Iterable[str] | None = None) -> str:
    """Mermaid ``erDiagram`` of the named tables (all by default): columns, keys, and who refers to whom."""
    metadata = Base.metadata
    wanted = set(metadata.tables if tables is None else tables)
    chosen = [table for table in metadata.sorted_tables if table.name in wanted]
    lines = ["erDiagram"]
    for table in chosen:
        lines += [f"    {parent} ||--o{{ {table.name} : has" for parent in _parents(table) if parent in wanted]
    for table in chosen:
        lines.append(f"    {table.name} {{")
        lines += [f"        {_type(column)} {column.name}{_keys(column)}" for column in table.columns]
        lines.append("    }")
    return "\n".join(lines) + "\n"


def _parents(table: Table) -> list[str]:
    """Tables that this one refers to, each once."""
    direct = sorted({constraint.referred_table.name for constraint in table.foreign_key_constraints})
    return [name for name in direct if name != table.name]


def _type(column: Column[object]) -> str:
    name = type(column.type).__name__.lower()
    length = getattr(column.type, "length", None) or getattr(column.type, "size", None)
    return f"{name}_{length}" if isinstance(length, int) else name


def _keys(column: Column[object]) -> str:
    keys = [name for name, held in (("PK", column.primary_key), ("FK", bool(column.foreign_keys))) if held]
    return f" {', '.join(keys)}" if keys else ""
