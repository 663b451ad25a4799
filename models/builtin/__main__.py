"""`python -m facefit.models.builtin`: generate the model and write its file."""

import time

import click

from facefit.models.builtin.generate import generate
from facefit.models.builtin.store import PATH, write


@click.command()
def main() -> None:
    """Generate the built-in face model (about a minute) and write its safetensors file."""
    start = time.perf_counter()
    write(generate())
    click.echo(f"{PATH} written: {PATH.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
