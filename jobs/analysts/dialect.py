"""What Spark and DuckDB write differently: quotes, texts and the names of types."""

from dataclasses import dataclass

from sqlglot import exp


@dataclass(frozen=True)
class Dialect:
    """How an engine, by the name that sqlglot has for it, writes names, texts and types."""

    name: str
    quote: str
    escapes: dict[str, str]

    def quoted(self, *names: str) -> str:
        """Return names, joined by dots, as the engine takes any of them."""
        return ".".join(self.quote + name.replace(self.quote, self.quote * 2) + self.quote for name in names)

    def text(self, text: str) -> str:
        """Return a text as a literal."""
        return f"'{''.join(self.escapes.get(letter, letter) for letter in text)}'"

    def type(self, kind: str) -> str:
        """Return a type of Spark's, in the engine's words."""
        return exp.DataType.build(kind, dialect="spark").sql(dialect=self.name)


SPARK = Dialect("spark", "`", {"\\": "\\\\", "'": "\\'"})
DUCKDB = Dialect("duckdb", '"', {"'": "''"})
