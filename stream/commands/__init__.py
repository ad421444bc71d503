"""One file per group of commands. They import typer only; everything else is imported where it is used."""
