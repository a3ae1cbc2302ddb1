"""The parser of commands: what is wrong with a command line is one sentence, like all other bad input."""

import argparse
import re
from typing import NoReturn

from insvie_lightning.errors import InputError, nearest


class Parser(argparse.ArgumentParser):
    """argparse's parser that raises instead of printing its usage, and offers the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong.

        Raises:
            InputError: Always.
        """
        offer = ""
        if found := re.match(r"unrecognized arguments: ([^ =]+)", message):
            offer = nearest(found[1], self._every_option())
        elif found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            offer = nearest(found[1], re.findall(r"[\w-]+", found[2]))
        raise InputError(f"{message}{offer or f'; {self.prog} --help tells more'}")

    def _every_option(self) -> list[str]:
        below = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        parsers = [self, *(parser for action in below for parser in action.choices.values())]
        return [option for parser in parsers for option in parser._option_string_actions]
