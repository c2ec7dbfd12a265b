"""Tables on a terminal, by rich."""

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from latentzip.bench.tables import Table

PIPE_WIDTH = 240  # a pipe has none of its own, and lines must not be broken at 80 columns there


def show_table(table: Table) -> None:
    """Print it on standard output; groups of equal first cells get a rule between them."""
    if not table.rows:
        return
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for i, name in enumerate(table.head):
        shown.add_column(name, justify="right" if i else "left", overflow="fold")
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        cells = [cell if isinstance(cell, str) else "\n".join(part for part in cell if part) for cell in row]
        grouped = len(table.rows) > len({str(one[0]) for one in table.rows})
        shown.add_row(*cells, end_section=grouped and following is not None and following[0] != row[0])
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(shown)
