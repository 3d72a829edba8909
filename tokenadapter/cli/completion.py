"""``tokenadapter completion``: prints a script by which a shell completes commands and profiles.

bash: source <(tokenadapter completion bash)     in ~/.bashrc
zsh:  source <(tokenadapter completion zsh)      in ~/.zshrc, below compinit
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.cli.main import COMMANDS, parser_of, takes_program
from tokenadapter.cli.output import write_line

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]

_BASH = r"""
_tokenadapter() {{
    local command="${{COMP_WORDS[1]}}" word="${{COMP_WORDS[COMP_CWORD]}}"
    local before="${{COMP_WORDS[COMP_CWORD-1]}}" at words=
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    for (( at = 2; at < COMP_CWORD; at++ )); do
        if [[ "${{COMP_WORDS[at]}}" == -- ]]; then
            # The rest is the line of another program.
            if declare -F _command_offset > /dev/null; then
                _command_offset $((at + 1))
            else
                COMPREPLY=($(compgen -f -- "$word"))
            fi
            return
        fi
    done
    case "$before" in
        --config) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --profile) words="$(tokenadapter completion names 2> /dev/null)" ;;
        --provider) words="{providers}" ;;
        --min-validity|--watch) words="30s 5m 1h" ;;
        *) case "$command" in
{cases}
        esac ;;
    esac
    COMPREPLY+=($(compgen -W "$words" -- "$word"))
}}
complete -F _tokenadapter tokenadapter
"""

_ZSH = r"""
autoload -Uz bashcompinit && bashcompinit
"""

_NAMES = "$(tokenadapter completion names 2> /dev/null)"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "shell", choices=("bash", "zsh", "names"), help="the shell; names: list the profiles"
    )


def perform(options: Namespace) -> int:
    """Print the script."""
    if options.shell == "names":
        from tokenadapter.config.config_file import ConfigFile

        text = "\n".join(ConfigFile.read().tables)
    else:
        from tokenadapter.sources.providers import known_names

        providers = " ".join(known_names())
        script = _BASH.format(commands=" ".join(COMMANDS), providers=providers, cases=_cases())
        text = (_ZSH if options.shell == "zsh" else "") + script.strip("\n")
    write_line(text.strip("\n"))
    return 0


def _cases() -> str:
    """The words that may follow each command."""
    lines = []
    for command in COMMANDS:
        words = []
        for action in parser_of(command)._actions:
            words += [option for option in action.option_strings if option.startswith("--")]
            words += map(str, action.choices or ())
            if action.dest in ("name", "names"):
                words.append(_NAMES)
        case = f'{command}) words="{" ".join(words)}"'
        if takes_program(command):
            case += '; COMPREPLY=($(compgen -f -- "$word"))'
        lines.append(f"            {case} ;;")
    return "\n".join(lines)
