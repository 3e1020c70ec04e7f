"""The command line: one file per command, each a thin call to the public API. Reading the help imports no torch."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any, NoReturn

import typer

from .. import __version__
from ..errors import PromptSegError, TrainingStopped
from . import (
    convert,
    data,
    doctor,
    evaluate,
    finetune,
    groups,
    info,
    instances,
    marks,
    models,
    panoptic,
    pull,
    refer,
    segment,
    semantic,
    track,
    train,
    verify,
)

STOPPED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # of the click that typer carries with it, or of the one beside it

EPILOG = """[bold]First steps[/bold]

    promptseg segment photo.jpg "a dog" "the grass"

    promptseg segment --help

[bold]Exit codes[/bold]

    0 all done.  1 an error stopped the command.  2 wrong usage.  3 done, but some photos could not be read or written.  130 interrupted."""

__all__ = ["app", "main"]

app = typer.Typer(name="promptseg", no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.command(epilog=segment.EPILOG)(segment.segment)
app.command(epilog=semantic.EPILOG)(semantic.semantic)
app.command(epilog=panoptic.EPILOG)(panoptic.panoptic)
app.command(epilog=instances.EPILOG)(instances.instances)
app.command(epilog=refer.EPILOG)(refer.refer)
app.command(epilog=marks.EPILOG)(marks.click)
app.command(epilog=track.EPILOG)(track.track)
app.command(epilog=groups.EPILOG)(groups.groups)
app.command()(models.models)
app.command()(info.info)
app.command()(pull.pull)
app.command(epilog=convert.EPILOG)(convert.convert)
app.command()(verify.verify)
app.command()(train.train)
app.command(epilog=finetune.EPILOG)(finetune.finetune)
app.command("eval", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.command()(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"promptseg {__version__}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def start(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version and stop."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error. May stand anywhere on the line."),
) -> None:
    """Segment photos by saying, or showing, what you mean.

    Works right after installation and without a network, with the small built-in model 'pocket'.
    """


def main() -> None:
    """Run the command line. An error is one line; ``--debug`` shows where it comes from."""
    debug = "--debug" in sys.argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where a name cannot be shown, the rest of the table is
    warnings.showwarning = lambda message, *_: print(f"promptseg: {message}", file=sys.stderr)
    try:
        sys.exit(app([argument for argument in sys.argv[1:] if argument != "--debug"], standalone_mode=False))
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help has been shown
            sys.exit(WRONG_USAGE)
        _stop(debug, _usage(error), WRONG_USAGE)
    except TrainingStopped as stopped:
        _stop(debug, str(stopped), INTERRUPTED)
    except (PromptSegError, ImportError) as error:
        _stop(debug, str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        _stop(debug, f"{error}. Check that the place exists, may be used and has room.")
    except Exception as error:
        _stop(debug, f"{type(error).__name__}: {error}. This was not foreseen: --debug shows where it happened, for a report.")


def _usage(error: Any) -> str:
    """What is wrong with the line, and whose help tells how it should be."""
    message, context = error.format_message(), error.ctx
    return f"{message}{'' if message.endswith(('.', '?', '!')) else '.'} See {context.command_path if context else app.info.name} --help."


def _stop(debug: bool, message: str, code: int = STOPPED) -> NoReturn:
    """End with one line, or with the traceback of the error that is being handled."""
    if debug:
        raise
    print(f"promptseg: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
