"""The one command: ``distillbench …``. People call it, and the Makefile; nothing here is called by other packages.

A sub-command imports what it needs when it runs, so that ``--help`` and completion know neither torch nor pandas.
"""

import sys
from collections.abc import Sequence

import click

from distillbench import __version__
from distillbench.cli import plugins, results, running
from distillbench.config.config import ConfigError
from distillbench.plugins import PluginError
from distillbench.record import RecordError


class _Errors(click.Group):
    """What goes wrong is said in a sentence; a traceback is for what nobody thought of."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"The command cannot run.\n{error}", err=True)
            ctx.exit(2)
        except (PluginError, RecordError, OSError) as error:
            click.echo(f"{ctx.command_path} {ctx.invoked_subcommand}: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Errors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="distillbench")
def command() -> None:
    """A reproducible benchmark of knowledge distillation for graph neural networks.

    \b
    distillbench run smoke                                            a minute, to see it work
    distillbench run --method kd --dataset digits --seeds 0-2         one method on one data set
    distillbench plan config/paper.yaml                               what would run, and how long it took elsewhere

    Tab completion: eval "$(_DISTILLBENCH_COMPLETE=bash_source distillbench)", or zsh_source, fish_source.
    """


for each in (*running.COMMANDS, *plugins.COMMANDS, *results.COMMANDS):
    command.add_command(each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 2 where it cannot run as it is given, 1 where something failed."""
    try:
        status = command.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        return 130
    return int(status or 0)


def script() -> None:
    """The console script."""
    sys.exit(main())
